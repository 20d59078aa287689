"""Commands that other packages carry out: this process becomes theirs (exec)."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

imports = typer.Typer(name="import", help="Bring human feedback from files into the event log.", no_args_is_help=True)
dlq = typer.Typer(name="dlq", help="Look at feedback that could not be used.", no_args_is_help=True)


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
    """Import OpenAssistant trees: rankings and thumbs, sent through Kafka like any other feedback."""
    become("feedback", "import", "oasst", str(file))


@dlq.command("ls")
def dlq_ls() -> None:
    """List the dead letters: reason, origin, time."""
    become("feedback", "dlq", "ls")


@dlq.command("show")
def dlq_show(
    reference: Annotated[str, typer.Argument(help="partition:offset, as `foldback dlq ls` lists it.")],
) -> None:
    """Show one dead letter in full."""
    become("feedback", "dlq", "show", reference)


def become(module: str, *arguments: str) -> None:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
