"""What commands share: settings, and a client driven from synchronous code."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import typer

from console.completion import personas
from console.errors import CommandError
from console.personas import PERSONAS, Persona

if TYPE_CHECKING:
    from console.client import Client
    from settings import Settings

Result = TypeVar("Result")
REFUSED = 2
"""Exit code where settings are refused."""
Taste = Annotated[str, typer.Option(help=f"Whose taste: {', '.join(PERSONAS)}.", autocompletion=personas)]
LabelNoise = Annotated[
    float, typer.Option(min=0, max=1, help="Share of judgements that say the opposite of what was meant.")
]
Hostile = Annotated[int, typer.Option(min=0, help="So many of the users always say the opposite.")]


def persona_called(name: str) -> Persona:
    """Raises CommandError with exit code 2 where there is none."""
    if name not in PERSONAS:
        raise CommandError(f"no persona {name!r}; there are {', '.join(PERSONAS)}", REFUSED)
    return PERSONAS[name]


def load_settings() -> Settings:
    """Raises CommandError with exit code 2 where they are refused."""
    from settings import SettingsError, load

    try:
        return load()
    except SettingsError as error:
        raise CommandError(str(error), REFUSED) from None


class Session:
    """A client whose calls run while the caller waits: `session.run(session.client.promote(…))`.

    In between, nothing runs, so a terminal can be read plainly. A failed call names the address it went to.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()

    def __enter__(self) -> Self:
        from console.client import Client

        self._runner = asyncio.Runner()
        self.client: Client = self._runner.run(Client.of(self.settings).__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self.client.__aexit__(None, None, None))
        self._runner.close()

    def run(self, call: Coroutine[Any, Any, Result]) -> Result:
        """The result of `call`. Raises CommandError in place of a failed call."""
        from console.errors import explain, is_rpc_error

        try:
            return self._runner.run(call)
        except Exception as error:
            if is_rpc_error(error):
                raise CommandError(explain(error, self.client.chat_address)) from error
            raise
