"""What the shell proposes: names that are known without asking, and versions where a server answers at once."""

from collections.abc import Iterable

QUICK_S = 1.0
Proposals = list[tuple[str, str]]
"""(what to type, what it is)."""


def personas(incomplete: str) -> Proposals:
    from console.personas import PERSONAS

    return _fitting(incomplete, ((name, persona.likes) for name, persona in PERSONAS.items()))


def reasons(incomplete: str) -> Proposals:
    """Of dead letters."""
    from foldback.v1.events_pb2 import DeadLetterReason

    names = (name.removeprefix("DEAD_LETTER_REASON_") for name, number in DeadLetterReason.items() if number)
    return _fitting(incomplete.upper(), ((name, "") for name in names))


def versions(incomplete: str) -> Proposals:
    """Nothing where no server answers within a second: a shell that waits is worse than one that knows less."""
    try:
        return _fitting(incomplete, _listed())
    except Exception:  # a message here would land in the middle of what is being typed
        return []


def _listed() -> Proposals:
    import asyncio

    from console.client import Client
    from console.names import short_version
    from console.policies_view import state_name
    from settings import load

    settings = load()
    quick = settings.console.model_copy(update={"timeout_s": QUICK_S})

    async def ask() -> Proposals:
        async with Client.of(settings.model_copy(update={"console": quick}), attempts=1) as client:
            listed = await client.list_policies()
        return [
            (short_version(policy.version), f"{state_name(policy.state)} {policy.version}")
            for policy in listed.policies
        ]

    return asyncio.run(ask())


def _fitting(incomplete: str, proposals: Iterable[tuple[str, str]]) -> Proposals:
    return [(name, what) for name, what in proposals if name.startswith(incomplete)]
