"""Ten thousand malformed or hostile SubmitFeedback calls: each a clean status, none in the log, the memory flat.

What is wrong with each is drawn from tests/server/test_feedback_fuzz.py: bytes that are no message, truncated ones,
forged, foreign, expired and mangled tokens, candidates of another, numbers that are none, endless texts. The server is
the whole one, in a process of its own, over an engine that answers at once.
"""

import argparse
import asyncio
import random
import tempfile
from collections import Counter
from pathlib import Path

import grpc
from harness.processes import DEFAULT_MODEL, process
from harness.report import Report, arguments

from feedback.consumer import open_consumer
from feedback.embedded_broker import EmbeddedBroker
from feedback.tokens import TokenSigner, load_or_create_keys
from feedback.topics import FEEDBACK
from settings.feedback import FeedbackSettings
from tests.server.test_feedback_fuzz import CLEAN, SUBMIT, hostile

AT_ONCE = 50
WARM_UP = 2000
"""Calls before memory is first read: caches and pools have filled."""


async def attack(address: str, dice: random.Random, signer: TokenSigner, calls: int) -> Counter[str]:
    """Statuses by name."""
    codes: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(address) as channel:
        submit: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(SUBMIT)

        async def one() -> None:
            try:
                await submit(hostile(dice, signer), timeout=30)
                codes["OK"] += 1
            except grpc.aio.AioRpcError as error:
                codes[error.code().name] += 1

        for _ in range(calls // AT_ONCE):
            await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    return codes


def logged(broker: str) -> int:
    """Records on the feedback topic."""
    consumer = open_consumer(FeedbackSettings(bootstrap_servers=broker), [FEEDBACK], {})
    count = sum(consumer.end_offsets(sorted(consumer.assignment())).values())
    consumer.close()
    return int(count)


async def run(options: argparse.Namespace, broker: str, folder: Path) -> Report:
    calls, dice = 1000 if options.quick else 10_000, random.Random(options.seed)
    command = ("-m", "harness.feedback_server", "kept", broker, str(DEFAULT_MODEL), str(folder))
    async with process(*command) as server:
        keys = load_or_create_keys(folder / "token_keys.json")
        signer = TokenSigner(keys.keys, keys.current, 7 * 86400.0)
        codes = await attack(server.said["chat"], dice, signer, WARM_UP)
        before_mb = server.rss_mb()
        codes += await attack(server.said["chat"], dice, signer, calls)
        grown_mb = server.rss_mb() - before_mb
    result = Report(f"Hostile SubmitFeedback calls (seed {options.seed})")
    result.rows += [{"status": code, "calls": count} for code, count in codes.most_common()]
    unclean = sum(count for code, count in codes.items() if code not in {each.name for each in CLEAN})
    result.target("calls without a clean refusal", unclean, at_most=0)
    result.target("feedback events logged", await asyncio.to_thread(logged, broker), at_most=0)
    result.target(f"memory grown over {calls} calls, MiB", grown_mb, at_most=8)
    return result


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seed", type=int, default=4)
    options = parser.parse_args()
    with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(options, broker.bootstrap_servers, Path(folder))).finish(options)


if __name__ == "__main__":
    main()
