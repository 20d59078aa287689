"""`audit`, `erase`, `raters`: whether it adds up, who is forgotten, who weighs most."""

import dataclasses
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table

import settings as settings_package
from feedback.audit import FATES, Audit
from feedback.audit import audit as run_audit
from feedback.forget import forget, holdings
from feedback.raters import report_raters
from settings.feedback import FeedbackSettings

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SHOWN_LOST = 20

out = Console()


def audit(
    since: Annotated[str, typer.Option(help="Start: an age (90m, 24h, 7d) or a time (2026-11-24T08:00).")] = "",
    until: Annotated[str, typer.Option(help="End, likewise; empty is now.")] = "",
    receipts: Annotated[
        list[Path] | None, typer.Option(help="Receipts of further replicas (their data_dir/receipts).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Check that all acknowledged feedback is learned, dead-lettered or waiting. Exit code 1 if any is lost."""
    settings = settings_package.load()
    now = time.time()
    start = parse_time(since, now) if since else 0.0
    end = parse_time(until, now) if until else float("inf")
    with busy("reading receipts, topic, spool and preference store"):
        result = run_audit(
            broker_settings(),
            store=_store(settings),
            receipts=[settings.data_dir / "receipts", *(receipts or [])],
            spools=[settings.data_dir / "spool.sqlite"],
            since=start,
            until=end,
        )
    if as_json:
        # Not asdict, which takes a Counter apart wrongly.
        plain = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
        print(json.dumps(plain | {"adds_up": result.adds_up}))
    else:
        _print_audit(result)
    if not result.adds_up:
        raise typer.Exit(1)


def erase(
    rater: Annotated[str, typer.Argument(help="The rater_id that asks to be forgotten.")],
    tenant: Annotated[str, typer.Option(help="Whose rater it is.")] = "default",
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the trainer.")] = 30.0,
) -> None:
    """Forget a rater: what they said and were served leaves the preference store and all later training sets."""
    settings = settings_package.load()
    store = _store(settings)
    before = holdings(store, tenant, rater)
    with busy(f"waiting until the trainer has obeyed, at most {timeout_s:g} s"):
        result = forget(broker_settings(), tenant, rater, timeout_s)
    if not result.confirmed:
        out.print(f"on the erasures topic; not confirmed within {timeout_s:g} s: is the trainer running?")
        out.print("Run the same again to see it confirmed.")
        raise typer.Exit(1)
    after = holdings(store, tenant, rater)
    out.print("confirmed: the preference store holds nothing of this rater from before the request", highlight=False)
    if before is not None and after is not None:
        out.print(f"feedback {before.feedback} → {after.feedback}, responses {before.responses} → {after.responses}")
    out.print("Copies on the topics expire with their retention: responses 14 days, feedback and dead letters 28.")


def raters(
    limit: Annotated[int, typer.Option(help="How many to list.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List the raters who weigh most, by judgements that count (before the reward model's cap per rater)."""
    report = report_raters(_store(settings_package.load()), limit)
    if as_json:
        print(json.dumps(dataclasses.asdict(report)))
        return
    table = Table("tenant", "rater", "judgements", "share", "changed", "retracted", "dead", "first", "last")
    for row in report.heaviest:
        numbers = (row.judgements, f"{row.share:.1%}", row.superseded, row.retracted, row.dead)
        table.add_row(row.tenant, row.rater_id, *map(str, numbers), _when(row.first_time), _when(row.last_time))
    out.print(table)
    out.print(f"{report.judgements} judgements of {report.raters} raters", highlight=False)


operate = (audit, erase, raters)


def busy(doing: str) -> Status:
    """Something moves on a terminal while this goes on; a pipe sees nothing of it."""
    return Console(stderr=True).status(f"{doing} …")


def broker_settings() -> FeedbackSettings:
    """The brokers that are set, else those that `foldback up` embeds on this machine."""
    settings = settings_package.load()
    if settings.feedback.bootstrap_servers:
        return settings.feedback
    embedded = f"127.0.0.1:{settings.console.broker_port}"
    return settings.feedback.model_copy(update={"bootstrap_servers": embedded})


def parse_time(text: str, now: float) -> float:
    """Unix seconds of an age before `now` or of an ISO time (UTC where it names no zone). Raises ValueError."""
    if age := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        return now - float(age[1]) * _UNITS[age[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time; give an age such as 90m, 24h or 7d, or 2026-11-24T08:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _store(settings: settings_package.Settings) -> Path:
    return settings.data_dir / "trainer" / "preferences.sqlite"


def _print_audit(result: Audit) -> None:
    table = Table("feedback", "count", show_header=False)
    table.add_row("acknowledged by the servers whose receipts are here", str(result.acknowledged))
    table.add_row("on the feedback topic", str(result.on_topic))
    table.add_row("  of them without a receipt here", str(result.only_on_topic))
    table.add_row("  copies sent again, taken once", str(result.sent_again), end_section=True)
    for fate in FATES:
        if result.fates[fate]:
            table.add_row(fate, str(result.fates[fate]))
    table.add_row("[bold]lost[/]" if result.lost else "lost", str(len(result.lost)))
    out.print(table)
    if result.adds_up:
        out.print(f"It adds up: {result.fates.total()} accounted for, none lost.", highlight=False)
        return
    out.print("[bold red]It does not add up.[/] Nowhere to be found:")
    for feedback_id in result.lost[:_SHOWN_LOST]:
        out.print(f"  {feedback_id}", highlight=False)


def _when(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M")
