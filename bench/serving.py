"""What serving costs: vLLM's engine in process, `vllm serve` over HTTP, and our gRPC server.

One run, the same model, prompts and engine settings. All live at once and take turns; those that wait sleep.
Greedy decoding, closed loop: each of N clients asks its next question when the last is answered.

Foldback always has the engine compute the sampled tokens' logprobs, which learning needs. AsyncLLM is shown with them,
which is what Foldback is held against, and without; `vllm serve` runs without, as it does by default.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

from harness.processes import DEFAULT_MODEL
from harness.report import Report, arguments

if TYPE_CHECKING:
    from harness.contenders import Contender

# Read when torch is first imported: threads that spin while they wait would take the cores from whose turn it is.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

IN_PROCESS, BARE, HTTP, GRPC = "AsyncLLM", "AsyncLLM, no logprobs", "vllm serve, HTTP", "Foldback, gRPC"
NAMES = IN_PROCESS, BARE, HTTP, GRPC
TARGET_CONCURRENCY = 32
QUESTIONS = (
    "Tell me a long story about a lighthouse keeper.",
    "Explain how bread is made, step by step.",
    "Describe a walk through a forest in autumn, in detail.",
    "Why is the sky blue, and the sunset red? Explain at length.",
    "Write down everything that you know about the moon.",
    "How does a bicycle stay upright? Explain it to a child.",
    "List the things to pack for two weeks in the mountains, and why.",
)


@dataclass
class Measured:
    """Of one contender at one concurrency, over all rounds."""

    rates: list[float] = field(default_factory=list)
    """Tokens a second, a round each."""
    first: list[float] = field(default_factory=list)
    """Seconds from asking to the first text."""
    gaps: list[float] = field(default_factory=list)
    """Seconds between two arrivals of text."""


Results = dict[tuple[int, str], Measured]


async def round_of(contender: "Contender", measured: Measured, clients: int, asked: int, max_tokens: int) -> None:
    questions = iter(list(islice(cycle(QUESTIONS), asked)))
    tokens = 0

    async def client() -> None:
        nonlocal tokens
        for question in questions:
            last, first = time.perf_counter(), True
            async for arrived in contender.stream(question, max_tokens):
                now = time.perf_counter()
                if arrived:
                    tokens += arrived
                    continue
                (measured.first if first else measured.gaps).append(now - last)
                last, first = now, False

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    measured.rates.append(tokens / (time.perf_counter() - begun))


async def measure(options: argparse.Namespace) -> Results:
    from harness.contenders import Engine, foldback, http, in_process

    engine = Engine(str(options.model), max_batch=max(options.concurrency))
    results: Results = defaultdict(Measured)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        grpc = await stack.enter_async_context(foldback(engine, folder))
        served = await stack.enter_async_context(http(engine))
        with_logprobs, without = await stack.enter_async_context(in_process(engine))
        contenders = {IN_PROCESS: with_logprobs, BARE: without, HTTP: served, GRPC: grpc}
        for contender in contenders.values():
            await round_of(contender, Measured(), 4, 4, 8)
        names = list(contenders)
        for turn in range(options.rounds):
            for clients in options.concurrency:
                # Another begins each time: what a round leaves behind, heat or cache, favours nobody.
                for name in names[turn % 4 :] + names[: turn % 4]:
                    asked = max(3, clients)
                    await round_of(contenders[name], results[clients, name], clients, asked, options.tokens)
    return results


def report(results: Results, options: argparse.Namespace) -> Report:
    said = Report(f"{options.tokens} tokens an answer; medians of {options.rounds} rounds; milliseconds")
    for clients in options.concurrency:
        for name in NAMES:
            measured = results[clients, name]
            first, gaps = (quantiles(values, n=100) for values in (measured.first, measured.gaps))
            said.rows.append(
                {
                    "clients": clients,
                    "server": name,
                    "tokens/s": median(measured.rates),
                    "first p50": 1e3 * first[49],
                    "first p99": 1e3 * first[98],
                    "gap p50": 1e3 * gaps[49],
                    "gap p99": 1e3 * gaps[98],
                }
            )
    if TARGET_CONCURRENCY in options.concurrency:
        ours, bare, peer = (results[TARGET_CONCURRENCY, name] for name in (GRPC, IN_PROCESS, HTTP))
        at = f"at {TARGET_CONCURRENCY} clients"
        rate = median(ours.rates)
        said.target(f"tokens/s {at}, of AsyncLLM's", rate / median(bare.rates), at_least=0.97)
        said.target(f"tokens/s {at}, of vllm serve's", rate / median(peer.rates), at_least=1.0)
        said.target(f"first token p50 {at}, of AsyncLLM's", median(ours.first) / median(bare.first), at_most=1.1)
    return said


def plot(said: Report, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4))
    for axis, column in zip(axes, ("tokens/s", "first p50", "gap p99"), strict=True):
        for name in NAMES:
            rows = [row for row in said.rows if row["server"] == name]
            axis.plot([str(row["clients"]) for row in rows], [row[column] for row in rows], "o-", label=name)
        axis.set_xlabel("clients")
        axis.set_title(column if column == "tokens/s" else f"{column}, ms")
    axes[0].legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--concurrency", type=int, nargs="+", help="default: 1 8 32 64; quick: 1 32")
    parser.add_argument("--rounds", type=int, help="default: 4; quick: 2")
    parser.add_argument("--tokens", type=int, help="of an answer; default: 48; quick: 32")
    options = parser.parse_args()
    options.concurrency = options.concurrency or ([1, 32] if options.quick else [1, 8, 32, 64])
    options.rounds = options.rounds or (2 if options.quick else 4)
    options.tokens = options.tokens or (32 if options.quick else 48)
    said = report(asyncio.run(measure(options)), options)
    said.finish(options)
    if options.plot:
        plot(said, options.plot)


if __name__ == "__main__":
    main()
