"""What answers: server, admin port, trainer, web page, and their clocks."""

import asyncio
import time
import urllib.request
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from urllib.error import HTTPError

import grpc

from console.client import Client
from console.doctor.finding import Finding, failed, note, ok
from console.endpoints import Endpoints
from console.errors import explain
from console.scrape import Samples, by_label, scrape, total
from console.stack import accepts
from console.status import FUNNEL
from foldback.v1 import policy_pb2
from settings import Settings
from settings.client import ClientSettings

START = "start it with 'foldback up'"
NOBODYS = "00000000-0000-5000-8000-000000000000"
"""A feedback id that no server gave: whoever may ask is told that there is none."""
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
WEB_TIMEOUT_S = 5.0
STALE_CHECKPOINT_S = 3600.0


Answer = tuple[list[Finding], bool]
"""What was found, and whether a Foldback answered, if only to refuse our key."""


async def server(client: Client, settings: Settings) -> Answer:
    """Health needs no key; the call after it does."""
    address, log = client.chat_address, settings.data_dir / "logs/server.log"
    try:
        if not await client.health():
            loading = f"{address} is not serving: it loads the model, or drains"
            return [failed("server", loading, f"wait; {log} says more")], True
        await client.feedback_status(NOBODYS)
    except grpc.aio.AioRpcError as error:
        if error.code() in REFUSED:
            return [failed("server", f"{address} refuses our key ({error.details()})", key("ACCESS"))], True
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            return await unreached("server", address, error, "ACCESS")
    return [ok("server", f"{address} is serving, {credentials(settings.console.access)}")], True


async def admin(client: Client, settings: Settings) -> Answer:
    address = client.admin_address
    try:
        listed = await client.list_policies()
    except grpc.aio.AioRpcError as error:
        if error.code() in REFUSED:
            return [failed("admin", f"{address} refuses our key ({error.details()})", key("ADMIN_ACCESS"))], True
        return await unreached("admin", address, error, "ADMIN_ACCESS")
    said = f"{address} serves {listed.serving_version}, {len(listed.policies)} versions listed"
    found = [ok("admin", f"{said}, {credentials(settings.console.admin_access)}")]
    active = [policy.version for policy in listed.policies if policy.state == policy_pb2.POLICY_STATE_ACTIVE]
    if active and listed.serving_version not in (*active, listed.canary_version):
        found.append(
            note(
                "admin",
                f"{active[0]} is active and not served yet",
                "a swap is under way, or failed: its log says which",
            )
        )
    if listed.training_state == policy_pb2.TRAINING_STATE_PAUSED:
        found.append(note("trainer", "training is paused", "'foldback resume-training' takes it up again"))
    return found, True


async def unreached(area: str, address: str, error: grpc.aio.AioRpcError, access: str) -> Answer:
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return [failed(area, f"{address}: {explain(error, address)}", "its log says more")], True
    if not await accepts(address)():
        return [failed(area, f"nobody answers at {address}", START)], False
    said = f"{address} takes connections and answers no call"
    remedy = f"is TLS on at one end only (FOLDBACK_CONSOLE__{access}__TLS_CA), or is it another program?"
    return [failed(area, said, remedy)], False


def key(access: str) -> str:
    return f"set FOLDBACK_CONSOLE__{access}__API_KEY to a key that its settings know ('python -m server.keys TENANT')"


def credentials(access: ClientSettings) -> str:
    key = "with our key" if access.api_key.get_secret_value() else "without a key"
    return f"{key}, {'over TLS' if access.tls_ca else 'without TLS'}"


async def trainer(place: Endpoints) -> Answer:
    """The trainer's metrics."""
    samples = await scrape(place.trainer_metrics)
    if samples is None:
        return [failed("trainer", f"nobody answers at {place.trainer_metrics}", f"{START}, or 'foldback train'")], False
    if not ours(samples):
        return [], False
    learned = total(samples, "foldback_ppo_iterations_total") or 0
    found = [ok("trainer", f"{place.trainer_metrics} answers, {learned:.0f} PPO iterations since its start")]
    checkpoint = total(samples, "foldback_checkpoint_timestamp_seconds")
    if checkpoint and learned and time.time() - checkpoint > STALE_CHECKPOINT_S:
        age = (time.time() - checkpoint) / 3600
        found.append(
            note("trainer", f"its last checkpoint is {age:.1f} h old", "is it paused, or out of feedback? See runbooks")
        )
    if dead := by_label(samples, FUNNEL, "stage").get("dead_lettered"):
        found.append(note("feedback", f"{dead:.0f} events could not be used", "'foldback dlq ls' says why"))
    return found, True


async def server_metrics(place: Endpoints) -> Answer:
    """The event log as the server sees it, and its clock."""
    samples = await scrape(place.server_metrics)
    if samples is None or not ours(samples):
        return [], False
    found = []
    if lost := total(samples, "foldback_events_lost_total"):
        found.append(failed("feedback", f"{lost:.0f} events were lost", "see FoldbackEventsLost in docs/runbooks.md"))
    if waiting := total(samples, "foldback_spool_events"):
        found.append(note("feedback", f"{waiting:.0f} events wait in the spool", "they drain when the brokers answer"))
    return [*found, await asyncio.to_thread(clock, place.server_metrics)], True


def ours(samples: Samples) -> bool:
    return any(name.startswith("foldback_") for name, _ in samples)


def clock(url: str, tolerance_s: float = 60.0) -> Finding:
    """This machine's clock against the server's, to the second that HTTP's Date tells."""
    try:
        with urllib.request.urlopen(url, timeout=WEB_TIMEOUT_S) as response:
            told, now = response.headers.get("Date"), time.time()
    except OSError:
        told, now = None, 0.0
    if told is None:
        return note("clock", f"{url} tells no time", "compare the clocks by hand")
    apart = now - parsedate_to_datetime(told).timestamp()
    if abs(apart) > tolerance_s:
        return failed("clock", f"{apart:+.0f} s from the server's", "set both by NTP: tokens expire by the clock")
    return ok("clock", f"within {max(1, round(abs(apart)))} s of the server's")


def web_answers(url: str) -> bool:
    """Whether the page at `url` is ours: open, or asking for its token."""
    try:
        with urllib.request.urlopen(url, timeout=WEB_TIMEOUT_S) as response:
            return b"Foldback" in response.read()
    except HTTPError as error:
        return b"Foldback" in error.read()
    except (OSError, HTTPException):
        return False
