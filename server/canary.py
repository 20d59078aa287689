"""Whether the engine really computes with the weights it was given."""

from collections.abc import Sequence

from foldback.v1 import chat_pb2
from registry import CanaryPrompt
from server.engines.base import Engine
from server.prompt import PromptBuilder

QUESTION = "What do you learn from the people who use you?"
ANSWER = "They rate and rank my answers, and I come to answer more as they would like."


async def deviation(engine: Engine, canary: Sequence[CanaryPrompt], version: str) -> float:
    """Mean |engine's logprob under `version` − expected| in nats a token; 0 without prompts, NaN if a logprob is."""
    difference, tokens = 0.0, 0
    for prompt in canary:
        scored = await engine.score(prompt.prompt_token_ids, prompt.completion_token_ids, version)
        difference += sum(abs(a - b) for a, b in zip(scored, prompt.logprobs, strict=True))
        tokens += len(scored)
    return difference / tokens if tokens else 0.0


async def base_canary(engine: Engine, prompts: PromptBuilder) -> list[CanaryPrompt]:
    """The base policy's canary, scored by the engine that has just loaded it: a later return to it must agree."""
    question = prompts.token_ids([chat_pb2.Message(role=chat_pb2.ROLE_USER, content=QUESTION)])
    answer = prompts.encode(ANSWER)
    logprobs = await engine.score(question, answer)
    return [CanaryPrompt(prompt_token_ids=question, completion_token_ids=answer, logprobs=logprobs)]
