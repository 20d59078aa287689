"""How much a persona likes what is served now: held-out prompts, sampled through the public API."""

import asyncio
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from console.client import Client
from console.personas import Persona
from console.personas.prompts import HELD_OUT
from console.personas.tastes import words
from foldback.v1 import chat_pb2

CONCURRENT = 8


@dataclass(frozen=True, slots=True)
class Measurement:
    """Utilities of one sample of answers."""

    utilities: tuple[float, ...]
    versions: Counter[str]
    """Answers by the version that made them: two when a swap fell in between."""
    texts: tuple[str, ...]
    """The answers; the first one is to the first prompt."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.utilities)

    @property
    def std(self) -> float:
        """Standard deviation of one answer's utility."""
        return statistics.stdev(self.utilities)

    @property
    def standard_error(self) -> float:
        """Of the mean, answers taken as independent."""
        return self.std / math.sqrt(len(self.utilities))

    @property
    def words(self) -> float:
        """Mean words an answer."""
        return statistics.fmean(len(words(text)) for text in self.texts)

    @property
    def distinct_2(self) -> float:
        """Distinct word pairs over all word pairs of the sample (Li et al. 2016, over pairs): low where answers are
        alike. Falls with the size of a sample, so only samples of one size compare."""
        pairs = [pair for text in self.texts for pair in itertools.pairwise(words(text))]
        return len(set(pairs)) / max(len(pairs), 1)

    @property
    def version(self) -> str:
        """The version that made most of the answers."""
        return self.versions.most_common(1)[0][0]


async def measure(
    client: Client,
    persona: Persona,
    failed: Counter[str],
    *,
    samples: int,
    max_tokens: int,
    prompts: Sequence[str] = HELD_OUT,
) -> Measurement:
    """`samples` answers a prompt, drawn as the server draws by default, without consent to train on them.

    Args:
        failed: failed calls are counted here, by status code.

    Raises:
        grpc.aio.AioRpcError: no call succeeded.
    """
    gate = asyncio.Semaphore(CONCURRENT)

    async def answers(prompt: str) -> chat_pb2.CreateChatResponse | grpc.aio.AioRpcError:
        async with gate:
            try:
                return await client.create_chat(_request(prompt, samples, max_tokens))
            except grpc.aio.AioRpcError as error:
                failed[error.code().name] += 1
                return error

    responses = await asyncio.gather(*(answers(prompt) for prompt in prompts))
    served = [response for response in responses if isinstance(response, chat_pb2.CreateChatResponse)]
    if not served:
        raise next(response for response in responses if isinstance(response, grpc.aio.AioRpcError))
    candidates = [(response.policy_version, candidate) for response in served for candidate in response.candidates]
    return Measurement(
        utilities=tuple(persona.utility(candidate.text) for _, candidate in candidates),
        versions=Counter(version for version, _ in candidates),
        texts=tuple(candidate.text for _, candidate in candidates),
    )


def _request(prompt: str, samples: int, max_tokens: int) -> chat_pb2.CreateChatRequest:
    return chat_pb2.CreateChatRequest(
        messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=prompt)],
        sampling=chat_pb2.Sampling(max_tokens=max_tokens),
        candidate_count=samples,
        labels={"purpose": "measurement"},
        training_consent=False,
    )
