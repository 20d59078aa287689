"""`python -m feedback …`: import files, look at dead letters, set up topics, run the embedded broker."""

import dataclasses
import json
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from kafka.errors import KafkaConfigurationError, KafkaError
from rich.console import Console
from rich.progress import track
from rich.table import Table

import settings as settings_package
from feedback import oasst
from feedback.commands import broker_settings, busy, operate
from feedback.connection import admin_client, read_cluster_id
from feedback.dlq import describe, find_letter, newest_letters, read_letters
from feedback.embedded_broker import BrokerFailed, EmbeddedBroker
from feedback.handshake import NotAdmitted
from feedback.importing import BATCH, send_import
from feedback.producer import Producer
from feedback.replay import event_of, replay, summary
from feedback.topic_alter import alter, find_differences
from feedback.topic_check import check_topics
from feedback.topics import all_topics, create_missing

app = typer.Typer(name="feedback", no_args_is_help=True, pretty_exceptions_enable=False)
imports = typer.Typer(name="import", help="Bring human feedback from files into the event log.", no_args_is_help=True)
dlq = typer.Typer(name="dlq", help="Look at feedback that could not be used.", no_args_is_help=True)
topics = typer.Typer(name="topics", help="Set up the topics.", no_args_is_help=True)
imports.callback()(lambda: None)  # a group stays a group with one command in it
for group in (imports, dlq, topics):
    app.add_typer(group)
for command in operate:
    app.command()(command)
out = Console()
_SETTINGS_AT_FAULT = (settings_package.SettingsError, ValueError, NotAdmitted, KafkaConfigurationError)
"""What another attempt does not mend: exit code 2."""


@imports.command("oasst")
def import_oasst(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    tenant: Annotated[str, typer.Option(help="Whose feedback it becomes.")] = "default",
) -> None:
    """OpenAssistant trees: rankings and thumbs. Importing the same file again adds nothing."""
    settings = broker_settings()
    with busy(f"reading {file}"):
        events = [event for tree in oasst.read_trees(file) for event in oasst.import_events(tree, tenant)]
    batches = [[event.event for event in events[start : start + BATCH]] for start in range(0, len(events), BATCH)]
    refused = send_import(settings, track(batches, "importing", console=out, disable=not out.is_terminal))
    _summarise(oasst.count(events), refused, settings.bootstrap_servers)


def _summarise(counts: Counter[str], refused: int, brokers: str) -> None:
    thumbs = counts["thumbs_up"] + counts["thumbs_down"]
    out.print(
        f"acknowledged by {brokers}: {counts['response']} responses, {counts['ranking']} rankings, {thumbs} thumbs"
        f" ({counts['thumbs_up']} up, {counts['thumbs_down']} down)"
    )
    if refused:
        out.print(f"[red]{refused} were too large for the brokers; raise message.max.bytes and import again")
        raise typer.Exit(1)
    out.print("The trainer joins them as it reads on; 'foldback status' shows how far it is.")


@dlq.command("ls")
def dlq_ls(
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List the dead letters: reference, time, reason. The oldest first; with --json the newest."""
    with busy("reading the dead-letter topic"):
        newest, total = newest_letters(broker_settings(), limit)
    if as_json:
        print(json.dumps({"total": total, "letters": [summary(stored) for stored in reversed(newest)]}))
        return
    table = Table("reference", "time", "reason", "origin", "feedback", "detail")
    for stored in newest:
        letter = stored.letter
        origin = f"{letter.topic}/{letter.partition}/{letter.offset}"
        reference = f"{stored.partition}:{stored.offset}"
        table.add_row(reference, letter.time.ToJsonString(), stored.reason, origin, letter.feedback_id, letter.detail)
    out.print(table if table.row_count else "no dead letters")
    if total > len(newest):
        out.print(f"and {total - len(newest)} older ones; --limit shows more", highlight=False)


@dlq.command("show")
def dlq_show(reference: Annotated[str, typer.Argument(help="partition:offset, as `dlq ls` lists it.")]) -> None:
    """Show one dead letter in full."""
    out.print(describe(find_letter(broker_settings(), reference)), markup=False, highlight=False)


@dlq.command("replay")
def dlq_replay(
    references: Annotated[list[str] | None, typer.Argument(help="partition:offset, as `dlq ls` lists them.")] = None,
    reason: Annotated[str, typer.Option(help="All letters of this reason, such as RESPONSE_MISSING.")] = "",
) -> None:
    """Send dead letters to the topic they came from, once their cause is mended. Twice is harmless."""
    if bool(references) is bool(reason):
        raise ValueError("give references, or --reason, as `foldback dlq ls` lists them")
    settings = broker_settings()
    with busy("reading the dead-letter topic, and sending again"):
        if references:
            letters = [find_letter(settings, reference) for reference in references]
            for stored in letters:
                event_of(stored)
        else:
            letters = [stored for stored in read_letters(settings) if stored.reason == reason]
        admin = admin_client(settings)
        producer = Producer(settings, read_cluster_id(admin))
        admin.close()
        try:
            counts = replay(producer, letters)
        finally:
            producer.close()
    out.print(
        f"{counts['replayed']} sent again, {counts['left out']} without the event, {counts['refused']} refused",
        highlight=False,
    )
    if counts["refused"]:
        raise typer.Exit(1)


@topics.command("apply")
def topics_apply() -> None:
    """Create the topics that are missing; alter partitions, retention and replicas that differ from the settings.
    Exit code 1 if a difference stays."""
    settings = broker_settings()
    admin = admin_client(settings)
    try:
        created = create_missing(admin, settings)
        differences = find_differences(admin, settings)
        refused = alter(admin, differences)
    finally:
        admin.close()
    for topic in all_topics(settings):
        out.print(f"{topic.name}: {'created' if topic.name in created else 'is there'}", highlight=False)
    for difference in differences:
        state = refused.get(difference, "altered")
        out.print(f"{difference.topic}: {difference}: {state}", highlight=False, soft_wrap=True)
    if refused:
        raise typer.Exit(1)


@topics.command("check")
def topics_check(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Compare the topics there are with the ones that `apply` would make. Exit code 1 if one cannot be used."""
    checks = check_topics(broker_settings())
    if as_json:
        print(json.dumps([dataclasses.asdict(check) for check in checks]))
    for check in checks if not as_json else ():
        out.print(f"{check.name}: {'; '.join(check.faults + check.differences) or 'as wanted'}", highlight=False)
    if any(check.faults for check in checks):
        raise typer.Exit(1)


@app.command()
def broker(port: Annotated[int, typer.Option(help="0 picks a free one.")] = 0) -> None:
    """Run the embedded broker until SIGTERM or SIGINT. It keeps nothing over a restart."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with EmbeddedBroker(port) as embedded:
        print(f"broker {embedded.bootstrap_servers}", flush=True)
        while not stop.wait(0.2):
            if (status := embedded.exit_status) is not None:
                raise BrokerFailed(f"the embedded broker ended by itself with status {status}")


def main() -> None:
    try:
        app()
    except (KafkaError, BrokerFailed, settings_package.SettingsError, LookupError, ValueError) as error:
        print(f"{error}", file=sys.stderr)
        if isinstance(error, _SETTINGS_AT_FAULT):
            sys.exit(2)
        if isinstance(error, KafkaError):
            print(
                "Is it running? 'foldback up' embeds a broker; FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS names others.",
                file=sys.stderr,
            )
        sys.exit(1)


if __name__ == "__main__":
    main()
