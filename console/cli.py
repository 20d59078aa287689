"""The `foldback` command. Heavy imports happen inside the commands, so that --help is instant."""

from collections.abc import Callable
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from console.commands import (
    chat,
    config,
    demo,
    doctor,
    handover,
    policies,
    rank,
    simulate,
    status,
    training,
    up,
    web,
)
from console.errors import CommandError, explain_exception

HELP = """Foldback serves a chat model and learns from its users while it serves them.

Start with [bold cyan]foldback up[/] and open the page it names, or take [bold cyan]foldback chat[/] in another
terminal, and rate what you read;
[bold cyan]foldback status[/] shows what has been learned. [bold cyan]foldback demo[/] does it all by itself, with
simulated users, and measures the result.

Settings come from foldback.yaml and from variables such as FOLDBACK_SERVER__PORT;
[bold cyan]foldback config check[/] shows the values in force.
"""

EXIT_CODES = (
    "[dim]Exit codes: 0 all is well · 1 it failed, or found what has to be mended · "
    "2 an argument or a setting is refused · 130 Ctrl-C[/]\n"
    "[dim]Completion in your shell:[/] [cyan]foldback --install-completion[/]"
)

RUN, USE, OPERATE = "Run it", "Talk to it", "Operate it"


class HelpfulGroup(TyperGroup):
    """Turns expected failures into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except Exception as error:
            message = explain_exception(error)
            if message is None:
                raise
            from rich.text import Text

            from console.terminal import err

            # Text, not markup: a message may quote brackets of others.
            err.print(Text.assemble(("foldback: ", "bold red"), message), soft_wrap=True)
            raise typer.Exit(error.exit_code if isinstance(error, CommandError) else 1) from None


def refill(text: str) -> str:
    """Paragraphs as single lines: the terminal's width decides where they break."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


app = typer.Typer(cls=HelpfulGroup, help=refill(HELP), epilog=EXIT_CODES, rich_markup_mode="rich", no_args_is_help=True)


def add(panel: str, *commands: Callable[..., None]) -> None:
    """Register functions under a heading of --help."""
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def teach(group: typer.Typer) -> None:
    """Each command's docstring is its help, refilled; lines below "Examples:" stay as they are, at its end."""
    for command in group.registered_commands:
        text, _, examples = (command.callback.__doc__ or "").partition("Examples:\n")
        command.help = refill(text)
        command.epilog = epilog([line.strip() for line in examples.strip().splitlines()])
    for inner in group.registered_groups:
        if inner.typer_instance:
            teach(inner.typer_instance)


def epilog(examples: list[str]) -> str | None:
    """A line an example; what stands behind two spaces says what it does."""
    if not examples:
        return None
    width = max(len(command) for command, _, _ in (line.partition("  ") for line in examples))
    lines = []
    for line in examples:
        command, _, what = line.partition("  ")
        shown = escape(command.ljust(width if what else 0))
        lines.append(f"[cyan]{shown}[/]  [dim]{escape(what.strip())}[/]" if what else f"[cyan]{shown}[/]")
    return "\n".join(["[bold]Examples[/]", *lines])


add(RUN, up.up, demo.demo, handover.serve, handover.train, web.web)
add(USE, chat.chat, rank.rank, simulate.simulate)
app.add_typer(handover.imports, rich_help_panel=USE)
add(OPERATE, status.status, doctor.doctor, policies.policies, policies.promote, policies.rollback)
add(OPERATE, training.pause_training, training.resume_training)
app.add_typer(handover.dlq, rich_help_panel=OPERATE)
app.add_typer(handover.topics, rich_help_panel=OPERATE)
add(OPERATE, handover.audit, handover.erase, handover.raters)
app.add_typer(config.config, rich_help_panel=OPERATE)
teach(app)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
