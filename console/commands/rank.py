"""`foldback rank`"""

from typing import Annotated

import typer


def rank(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    candidates: Annotated[int, typer.Option("--candidates", "-n", min=2, max=8, help="Answers to compare.")] = 3,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="The server's default if left out.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The server's default if left out.")] = None,
) -> None:
    """Ask once, read several answers blind, and put them in order.

    An order like 2>1=3 means: 2 is best, 1 and 3 are equal. `none` says that none of them will do. The answers stand
    in the order that the server shuffled them into, so that the first place favours nobody.

    Examples:
        foldback rank "How can I sleep better?"
        foldback rank "Write a haiku about tea." -n 4 --max-tokens 60
    """
    from console.commands.common import Session
    from console.rank import ask_for_ranking

    with Session() as session:
        ask_for_ranking(session, question, candidates, temperature, max_tokens)
