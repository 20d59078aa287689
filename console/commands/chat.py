"""`foldback chat`"""

from typing import Annotated

import typer


def chat(
    system: Annotated[str, typer.Option(help="A system message to begin with.")] = "",
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="The server's default if left out.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The server's default if left out.")] = None,
    consent: Annotated[
        bool, typer.Option("--consent/--no-consent", help="Whether this conversation may be learned from.")
    ] = True,
) -> None:
    """Talk to the model and rate its answers with one key.

    After each answer: u thumbs up, d thumbs down, r another answer (then say which is better), e write it the way it
    should have been, Enter nothing, q quit. Ctrl-C stops an answer half-way.

    Examples:
        foldback chat
        foldback chat --system "Answer in one sentence." --temperature 0.3
        foldback chat --no-consent    talk without being learned from
    """
    from console.chat import Conversation
    from console.commands.common import Session

    with Session() as session:
        Conversation(session, system, temperature, max_tokens, consent).talk()
