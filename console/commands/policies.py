"""`foldback policies`, `foldback promote`, `foldback rollback`"""

from typing import Annotated

import typer

Reason = Annotated[str, typer.Option(help="Kept in the life-cycle log.")]


def policies(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List the policy versions: which is served, where each came from, how it did."""
    from console.commands.common import Session
    from console.policies_view import print_json, print_table

    with Session() as session:
        listed = session.run(session.client.list_policies())
    (print_json if as_json else print_table)(listed)


def promote(
    version: Annotated[str, typer.Argument(help="As 'foldback policies' lists it, like p000012-3fa9c1d2.")],
    reason: Reason = "asked by an operator",
) -> None:
    """Make a version the active one; returns once it is served. No request is dropped."""
    from console.commands.common import Session
    from console.terminal import out

    with Session() as session, out.status(f"{version} is being swapped in"):
        policy = session.run(session.client.promote(version, reason))
    out.print(f"serving [bold]{policy.version}[/]; 'foldback rollback' returns to its parent")


def rollback(
    to: Annotated[str, typer.Option(help="The version to return to; the active one's parent if left out.")] = "",
    reason: Reason = "asked by an operator",
) -> None:
    """Return to the parent of the active version, or to the one named."""
    from console.commands.common import Session
    from console.terminal import out

    with Session() as session, out.status("rolling back"):
        policy = session.run(session.client.rollback(to, reason))
    out.print(f"serving [bold]{policy.version}[/]; training may promote again: 'foldback pause-training' holds it")
