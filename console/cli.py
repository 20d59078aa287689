"""The `foldback` command. Heavy imports happen inside the commands, so that --help is instant."""

from collections.abc import Callable
from typing import Any

import typer
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


app = typer.Typer(
    cls=HelpfulGroup, help=refill(HELP), rich_markup_mode="rich", no_args_is_help=True, add_completion=False
)


def add(panel: str, *commands: Callable[..., None]) -> None:
    """Register functions under a heading of --help; each docstring is the help, its paragraphs refilled."""
    for command in commands:
        app.command(rich_help_panel=panel, help=refill(command.__doc__ or ""))(command)


add(RUN, up.up, demo.demo, handover.serve, handover.train, web.web)
add(USE, chat.chat, rank.rank, simulate.simulate)
app.add_typer(handover.imports, rich_help_panel=USE)
add(OPERATE, status.status, doctor.doctor, policies.policies, policies.promote, policies.rollback)
add(OPERATE, training.pause_training, training.resume_training)
app.add_typer(handover.dlq, rich_help_panel=OPERATE)
app.add_typer(handover.topics, rich_help_panel=OPERATE)
add(OPERATE, handover.audit, handover.erase, handover.raters)
app.add_typer(config.config, rich_help_panel=OPERATE)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
