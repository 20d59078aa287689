"""What engine tests ask, how they put the answer together, and what it should have been."""

import shutil
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from registry import CanaryPrompt
from server.engines.base import Engine, GenerationRequest, Sampling, VersionSpan, Weights
from tests.tiny_adapter import make_tiny_adapter
from tests.tiny_model import make_tiny_model

GREEDY = Sampling(temperature=0, top_p=1, top_k=0, max_tokens=24)
DRAWN = Sampling(temperature=1, top_p=1, top_k=0, max_tokens=24)
_ids = count()


@dataclass
class Completion:
    """The deltas of one candidate, put together."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    spans: tuple[VersionSpan, ...] = ()


def request(prompt: tuple[int, ...], sampling: Sampling = DRAWN, **fields: object) -> GenerationRequest:
    return GenerationRequest(f"test-{next(_ids)}", prompt, sampling, **fields)  # type: ignore[arg-type]


async def complete(engine: Engine, asked: GenerationRequest) -> list[Completion]:
    completions = [Completion() for _ in range(asked.candidate_count)]
    async with aclosing(engine.generate(asked)) as deltas:
        async for delta in deltas:
            completion = completions[delta.candidate_index]
            assert completion.finish_reason is None, "a delta after the last one"
            completion.text += delta.text
            completion.token_ids += delta.token_ids
            completion.logprobs += delta.logprobs
            completion.finish_reason = delta.finish_reason
            completion.spans = delta.version_spans
    return completions


@cache
def reference_model(directory: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def reference_logprobs(directory: Path, prompt: tuple[int, ...], completion: list[int]) -> torch.Tensor:
    """Log-probabilities [T, V] at temperature 1 that predict each completion token."""
    ids_1L = torch.tensor([[*prompt, *completion]])
    with torch.inference_mode():
        logits_LV = reference_model(directory)(ids_1L).logits[0]
    logprobs_TV: torch.Tensor = logits_LV[len(prompt) - 1 : -1].log_softmax(dim=-1)
    return logprobs_TV


def merged(weights: Weights) -> Path:
    """Where the whole model of this version is, for reference."""
    return weights.directory.parent / "weights" if weights.adapter else weights.directory


def make_version(engine: Engine, version: str, base: Path, folder: Path, seed: int) -> Weights:
    """A version far from the base and from those of other seeds, in the form that the engine takes."""
    if engine.swap_mode == "adapter":
        return Weights(version, make_tiny_adapter(base, folder, seed=seed) / "adapter", adapter=True)
    return Weights(version, make_tiny_model(folder / "weights", seed=seed))


def of_tokens(logprobs_TV: torch.Tensor, token_ids: list[int]) -> torch.Tensor:
    return logprobs_TV.gather(1, torch.tensor(token_ids)[:, None])[:, 0]


def damaged(directory: Path, target: Path, damage: str) -> Path:
    """A copy of the model or adapter in `directory`, broken in the named way."""
    shutil.copytree(directory, target)
    [file] = target.glob("*.safetensors")
    tensors = load_file(file)
    name = next(name for name in sorted(tensors) if "3.mlp.down_proj" in name)
    if damage == "missing tensor":
        del tensors[name]
    elif damage == "wrong shape":
        tensors[name] = tensors[name][:, :-4].contiguous()
    if damage in ("missing tensor", "wrong shape"):
        save_file(tensors, file)
    elif damage == "truncated file":
        file.write_bytes(file.read_bytes()[:-1000])
    else:
        file.unlink()
    return target


@cache
def canary_prompt(weights: Path, off_by: float) -> CanaryPrompt:
    """As a version carries it; its logprobs are `off_by` nats what `weights` computes."""
    prompt, completion = (5, 6, 7, 8), [40, 41, 300, 7]
    logprobs = of_tokens(reference_logprobs(weights, prompt, completion), completion)
    return CanaryPrompt(
        prompt_token_ids=prompt,
        completion_token_ids=tuple(completion),
        logprobs=tuple(x + off_by for x in logprobs.tolist()),
    )
