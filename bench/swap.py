"""Hot swaps under load, in both modes, over gRPC, on a real server: what its users notice of them.

Each mode: a server; swaps with one stream and nothing else, which tells how long pause and apply take; then many
streaming clients, without swaps and with them. At the end every version is asked for rollouts, on a prompt that is long
enough to be cached, and the logprobs are compared with those of its files loaded afresh.

Memory: vLLM maps its KV cache at the start and touches a block when it is first used, so a server grows to its full
size by serving alone. Before anything is measured, prompts that share nothing fill the whole cache; the clients then
run without swaps; and what is compared is the median of the last tenth of the swaps with that of the first tenth.
Answers differ in length, as users' do: else all clients would end together, and a new version find nobody to ask it.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from statistics import mean, median, quantiles

import grpc
from harness.processes import DEFAULT_MODEL, Process, process
from harness.report import Report, arguments
from harness.swap_load import QUESTIONS, Crowd
from harness.swap_versions import fresh_logprobs, make_policy, publish
from transformers import AutoTokenizer

from feedback.embedded_broker import EmbeddedBroker
from foldback.v1 import chat_pb2, chat_pb2_grpc, policy_pb2, policy_pb2_grpc, rollout_pb2, rollout_pb2_grpc
from registry import Registry

MODES = ("weights", "adapter")
LONG_QUESTION = " ".join(f"{i}. {QUESTIONS[i % len(QUESTIONS)]}" for i in range(30))
"""Over two of vLLM's blocks of 128 tokens: whole blocks are cached."""


@dataclass(frozen=True)
class Size:
    clients: int
    swaps: int
    alone: int
    """Swaps with one stream and nothing else."""
    quiet_s: float
    """Load without swaps."""
    tokens: int = 48
    """Of an answer, on average."""


FULL, QUICK = Size(32, 100, 10, 30), Size(8, 10, 3, 6)


@dataclass
class Measured:
    mode: str
    alone_gaps: list[float] = field(default_factory=list)
    """Seconds that one stream stood still at each swap, its own pace included."""
    alone_pace: float = 0.0
    quiet: list[float] = field(default_factory=list)
    swapping: list[float] = field(default_factory=list)
    to_first: list[float] = field(default_factory=list)
    """From publishing (the registry's move) to the first text of a request that began under the new version."""
    finished: int = 0
    wrong: list[str] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    """After each swap under load."""
    cold_mb: float = 0.0
    """Before the KV cache was filled."""
    off_before: float = 0.0
    """Mean |logprob − fresh load's| of the base, before any swap."""
    off: dict[str, float] = field(default_factory=dict)
    """The same of each version, swapped in."""


@dataclass
class Deployment:
    server: Process
    chat: "chat_pb2_grpc.ChatServiceAsyncStub"
    policies: "policy_pb2_grpc.PolicyServiceAsyncStub"
    rollouts: "rollout_pb2_grpc.RolloutServiceAsyncStub"
    registry: Registry

    async def promote(self, version: str) -> float:
        """Seconds since the epoch of perf_counter when it was asked; returns once the version is served."""
        begun = time.perf_counter()
        await self.policies.PromotePolicy(policy_pb2.PromotePolicyRequest(version=version), timeout=120)
        return begun


@asynccontextmanager
async def deployed(mode: str, folder: Path, broker: str) -> AsyncIterator[Deployment]:
    settings = {
        "DATA_DIR": str(folder),
        "MODEL__NAME": str(DEFAULT_MODEL),
        "FEEDBACK__BOOTSTRAP_SERVERS": broker,
        "REGISTRY__POLL_INTERVAL_S": "0.1",
        **{f"SERVER__{name}": "0" for name in ("PORT", "ADMIN_PORT", "METRICS_PORT")},
        "SERVER__ENGINE": "vllm",
        "SERVER__SWAP_MODE": mode,
        "SERVER__VLLM__KV_CACHE_GIB": "0.5",
    }
    async with (
        process("-m", "server", **{f"FOLDBACK_{name}": value for name, value in settings.items()}) as server,
        grpc.aio.insecure_channel(server.said["chat"]) as public,
        grpc.aio.insecure_channel(server.said["admin"]) as admin,
    ):
        yield Deployment(
            server,
            chat_pb2_grpc.ChatServiceStub(public),
            policy_pb2_grpc.PolicyServiceStub(admin),
            rollout_pb2_grpc.RolloutServiceStub(admin),
            Registry((folder / "registry").absolute().as_uri()),
        )


async def off_by(deployment: Deployment, weights: Path) -> float:
    """Mean |logprob of a sampled token − that of `weights` loaded afresh|, of the version that is served, in nats."""
    questions = [chat_pb2.Message(role=chat_pb2.ROLE_USER, content=text) for text in (LONG_QUESTION, QUESTIONS[0])]
    request = rollout_pb2.GenerateRolloutsRequest(
        prompts=[rollout_pb2.RolloutPrompt(messages=[message]) for message in questions],
        samples_per_prompt=2,
        sampling=chat_pb2.Sampling(temperature=1, top_p=1, top_k=0, max_tokens=32),
    )
    rollouts = [response.rollout async for response in deployment.rollouts.GenerateRollouts(request)]
    prompts, answers = [list(r.prompt_token_ids) for r in rollouts], [list(r.token_ids) for r in rollouts]
    fresh = await asyncio.to_thread(fresh_logprobs, weights, prompts, answers)
    served = [logprob for rollout in rollouts for logprob in rollout.logprobs]
    return float(mean(abs(a - b) for a, b in zip(served, fresh, strict=True)))


async def fill_kv_cache(deployment: Deployment) -> None:
    """Touch every block. It holds 23,300 tokens of the model; here come 20 × 1,750, in prompts that share nothing."""
    numbers = random.Random(0)
    for _ in range(20):
        text = " ".join(str(numbers.randrange(1000)) for _ in range(450))
        message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=text)
        once = chat_pb2.Sampling(max_tokens=1)
        await deployment.chat.CreateChat(chat_pb2.CreateChatRequest(messages=[message], sampling=once), timeout=120)


async def alone(deployment: Deployment, versions: list[str], measured: Measured) -> None:
    crowd = Crowd(deployment.chat, tokens=400)
    async with crowd.asking(1):
        await asyncio.sleep(2)
        measured.alone_pace = median(gap.seconds for gap in crowd.gaps)
        for version in versions:
            begun = await deployment.promote(version)
            await asyncio.sleep(0.5)  # so that what stood still has gone on
            measured.alone_gaps.append(max(crowd.between(begun, time.perf_counter())))
    measured.wrong += crowd.wrong


async def under_load(deployment: Deployment, versions: list[str], size: Size, measured: Measured) -> None:
    crowd = Crowd(deployment.chat, size.tokens)
    async with crowd.asking(size.clients):
        await asyncio.sleep(size.quiet_s / 5)
        begun = time.perf_counter()
        await asyncio.sleep(size.quiet_s)
        measured.quiet = crowd.between(begun, time.perf_counter())
        begun = time.perf_counter()
        for version in versions:
            crowd.first_text.pop(version, None)
            moved = await deployment.promote(version)
            measured.to_first.append(await crowd.text_from(version) - moved)
            measured.rss_mb.append(deployment.server.rss_mb())
        measured.swapping = crowd.between(begun, time.perf_counter())
    measured.finished, measured.wrong = crowd.finished, measured.wrong + crowd.wrong


async def measure(mode: str, size: Size, policies: list[Path], folder: Path, broker: str) -> Measured:
    measured = Measured(mode)
    async with deployed(mode, folder / mode, broker) as deployment:
        measured.cold_mb = deployment.server.rss_mb()
        await fill_kv_cache(deployment)
        measured.off_before = await off_by(deployment, DEFAULT_MODEL)
        check = check_tokens()
        names = [
            await asyncio.to_thread(publish, deployment.registry, policy, folder, step, check)
            for step, policy in enumerate(policies, 1)
        ]
        order = list(islice(cycle(names), size.alone + size.swaps))
        await alone(deployment, order[: size.alone], measured)
        await under_load(deployment, order[size.alone :], size, measured)
        for name, policy in zip(names, policies, strict=True):
            if name != order[-1]:
                await deployment.promote(name)
                order.append(name)
            measured.off[name] = await off_by(deployment, policy / "weights")
    return measured


def check_tokens() -> tuple[list[int], list[int]]:
    """Prompt and answer of every version's canary check."""
    tokenizer = AutoTokenizer.from_pretrained(DEFAULT_MODEL)
    return tokenizer(QUESTIONS[0])["input_ids"], tokenizer("Once upon a time, far out at sea,")["input_ids"]


def report(results: list[Measured], size: Size) -> Report:
    result = Report(f"{size.swaps} swaps under {size.clients} streaming clients; milliseconds between pieces of text")
    for each in results:
        quiet, swapping = quantiles(each.quiet, n=100), quantiles(each.swapping, n=100)
        pauses = [gap - each.alone_pace for gap in each.alone_gaps]
        result.rows.append(
            {
                "mode": each.mode,
                "requests": each.finished,
                "p99 quiet": 1e3 * quiet[98],
                "p99 swaps": 1e3 * swapping[98],
                "worst quiet": 1e3 * max(each.quiet),
                "worst swaps": 1e3 * max(each.swapping),
                "pause alone p50": 1e3 * median(pauses),
                "pause alone max": 1e3 * max(pauses),
                "publish → first text p50 s": median(each.to_first),
                "max s": max(each.to_first),
                "RSS MB cold": each.cold_mb,
                "first swaps": first_mb(each),
                "last swaps": last_mb(each),
            }
        )
        name = each.mode
        result.target(f"{name}: failed or truncated requests", len(each.wrong), at_most=0)
        result.target(
            f"{name}: hot-swapped logprobs off a fresh load's, of the unswapped base's", off_ratio(each), at_most=1.5
        )
        growth = last_mb(each) / first_mb(each)
        result.target(f"{name}: resident memory in the last tenth, of in the first tenth", growth, at_most=1.03)
        if name == "weights":
            ratio = max(each.swapping) / max(each.alone_gaps)
            result.target("weights: worst gap, of pause + apply alone", ratio, at_most=2)
            result.target("weights: pause + apply alone, p50, seconds", median(pauses), at_most=0.2)
        else:
            result.target("adapter: p99 gap with swaps, of without", swapping[98] / quiet[98], at_most=1.25)
            result.target(
                "adapter: worst gap with swaps, of without", max(each.swapping) / max(each.quiet), at_most=1.5
            )
        for error in each.wrong[:3]:
            print(f"{name}: {error}")
    return result


def first_mb(measured: Measured) -> float:
    """Median over the first tenth of the swaps."""
    return median(measured.rss_mb[: max(1, len(measured.rss_mb) // 10)])


def last_mb(measured: Measured) -> float:
    return median(measured.rss_mb[-max(1, len(measured.rss_mb) // 10) :])


def off_ratio(measured: Measured) -> float:
    """Of the version that is furthest off. A stale prefix, or another version's weights, gives ten times as much."""
    return max(measured.off.values()) / measured.off_before


async def run(size: Size, modes: Sequence[str]) -> list[Measured]:
    with tempfile.TemporaryDirectory() as name, EmbeddedBroker() as broker:
        folder = Path(name)
        policies = [make_policy(DEFAULT_MODEL, folder / f"policy-{seed}", seed) for seed in (1, 2)]
        return [await measure(mode, size, policies, folder, broker.bootstrap_servers) for mode in modes]


def plot(results: list[Measured], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for each in results:
        for label, gaps in (("without swaps", each.quiet), ("with swaps", each.swapping)):
            ordered = sorted(1e3 * gap for gap in gaps)
            above = [1 - i / len(ordered) for i in range(len(ordered))]
            axes.plot(ordered, above, label=f"{each.mode}, {label}")
    axes.set(xscale="log", yscale="log", xlabel="milliseconds between pieces of text", ylabel="share that is longer")
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--mode", choices=MODES, help="this mode alone")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    results = asyncio.run(run(size, [options.mode] if options.mode else MODES))
    report(results, size).finish(options)
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
