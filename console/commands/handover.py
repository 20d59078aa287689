"""Commands that other packages carry out: this process becomes theirs (exec)."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from console.completion import reasons as letter_reasons

imports = typer.Typer(name="import", help="Bring human feedback from files into the event log.", no_args_is_help=True)
dlq = typer.Typer(name="dlq", help="Feedback that could not be used: list, show, replay.", no_args_is_help=True)
topics = typer.Typer(name="topics", help="Set up and check the topics.", no_args_is_help=True)


def serve() -> None:
    """Run the inference server alone (`python -m server`)."""
    become("server")


def train() -> None:
    """Run the trainer alone (`python -m trainer`)."""
    become("trainer")


@imports.callback()
def _imports() -> None: ...


@imports.command("oasst")
def import_oasst(
    file: Annotated[
        Path, typer.Argument(help="OpenAssistant conversation trees, one JSON object a line.", exists=True)
    ],
) -> None:
    """Import OpenAssistant trees: rankings and thumbs, sent through Kafka like any other feedback.

    Importing the same file again adds nothing.

    Examples:
        foldback import oasst oasst_trees.jsonl
    """
    become("feedback", "import", "oasst", str(file))


@dlq.command("ls")
def dlq_ls(
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List the dead letters: reason, origin, time.

    Examples:
        foldback dlq ls
        foldback dlq ls --json --limit 50
    """
    become("feedback", "dlq", "ls", "--limit", str(limit), *(["--json"] if as_json else []))


@dlq.command("show")
def dlq_show(
    reference: Annotated[str, typer.Argument(help="partition:offset, as `foldback dlq ls` lists it.")],
) -> None:
    """Show one dead letter in full."""
    become("feedback", "dlq", "show", reference)


@dlq.command("replay")
def dlq_replay(
    references: Annotated[list[str] | None, typer.Argument(help="partition:offset, as `dlq ls` lists them.")] = None,
    reason: Annotated[
        str, typer.Option(help="All letters of this reason, such as RESPONSE_MISSING.", autocompletion=letter_reasons)
    ] = "",
) -> None:
    """Send dead letters to the topic they came from, once their cause is mended. Twice is harmless.

    Examples:
        foldback dlq replay 0:17
        foldback dlq replay --reason RESPONSE_MISSING
    """
    become("feedback", "dlq", "replay", *(references or []), *(["--reason", reason] if reason else []))


@topics.command("apply")
def topics_apply() -> None:
    """Create the topics that are missing; alter partitions, retention and replicas that differ from the settings.

    The exit code is 1 where a difference stays.
    """
    become("feedback", "topics", "apply")


@topics.command("check")
def topics_check(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Compare the topics there are with the ones that `apply` would make; exit code 1 if one cannot be used."""
    become("feedback", "topics", "check", *(["--json"] if as_json else []))


def audit(
    since: Annotated[str, typer.Option(help="Start: an age (90m, 24h, 7d) or a time (2026-11-24T08:00).")] = "",
    until: Annotated[str, typer.Option(help="End, likewise; empty is now.")] = "",
    receipts: Annotated[
        list[Path] | None, typer.Option(help="Receipts of further replicas (their data_dir/receipts).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Check that all acknowledged feedback is learned, dead-lettered or waiting.

    The exit code is 1 where any is lost.

    Examples:
        foldback audit
        foldback audit --since 24h --json
    """
    options = [part for name, value in (("--since", since), ("--until", until)) if value for part in (name, value)]
    options += [part for path in receipts or [] for part in ("--receipts", str(path))]
    become("feedback", "audit", *options, *(["--json"] if as_json else []))


def erase(
    rater: Annotated[str, typer.Argument(help="The rater_id that asks to be forgotten.")],
    tenant: Annotated[str, typer.Option(help="Whose rater it is.")] = "default",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the trainer.")] = 30.0,
) -> None:
    """Forget a rater: what they said and were served leaves the preference store and all later training sets.

    The exit code is 1 where the trainer has not confirmed it in time; the same again asks again.

    Examples:
        foldback erase user-17
        foldback erase user-17 --tenant shop --timeout 120
    """
    become("feedback", "erase", rater, "--tenant", tenant, "--timeout", str(timeout))


def raters(
    limit: Annotated[int, typer.Option(help="How many to list.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List the raters who weigh most.

    Examples:
        foldback raters --limit 5
        foldback raters --json
    """
    become("feedback", "raters", "--limit", str(limit), *(["--json"] if as_json else []))


def become(module: str, *arguments: str) -> None:
    """Raises CommandError where the settings are refused, as every command does."""
    from console.commands.common import load_settings

    load_settings()
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
