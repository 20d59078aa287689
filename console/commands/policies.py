"""`foldback policies`, `foldback promote`, `foldback rollback`"""

from typing import Annotated

import typer

from console.completion import versions

Reason = Annotated[str, typer.Option(help="Kept in the life-cycle log; others will read it.")]


def policies(
    version: Annotated[
        str,
        typer.Argument(help="One version in full, whole (p000012-3fa9c1d2) or short (p12).", autocompletion=versions),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List the policy versions, newest first: which is served, where each came from, how it did, and why.

    With a VERSION that one alone, with all its figures: why it was rejected, say.

    Examples:
        foldback policies             all of them
        foldback policies p8          why p8 was rejected
        foldback policies --json      for scripts
    """
    from console import policies_view as view
    from console.commands.common import Session
    from console.names import full_version

    with Session() as session:
        listed = session.run(session.client.list_policies())
    if not version:
        (view.print_json if as_json else view.print_table)(listed)
        return
    name = full_version(version, (policy.version for policy in listed.policies))
    policy = next(policy for policy in listed.policies if policy.version == name)
    (view.print_json if as_json else view.print_policy)(policy)


def promote(
    version: Annotated[
        str, typer.Argument(help="As 'foldback policies' lists it, whole or short (p12).", autocompletion=versions)
    ],
    reason: Reason = "asked by an operator",
) -> None:
    """Make a version the active one; returns once it is served. No request is dropped.

    Examples:
        foldback promote p12
        foldback promote p12 --reason "users like its tone better"
    """
    from console.commands.common import Session
    from console.names import full_version
    from console.terminal import err, out

    with Session() as session, err.status(f"{version} is being swapped in"):
        listed = session.run(session.client.list_policies())
        name = full_version(version, (policy.version for policy in listed.policies))
        policy = session.run(session.client.promote(name, reason))
    out.print(f"serving [bold]{policy.version}[/]; 'foldback rollback' returns to its parent")


def rollback(
    to: Annotated[
        str,
        typer.Option(help="The version to return to; the active one's parent if left out.", autocompletion=versions),
    ] = "",
    reason: Reason = "asked by an operator",
) -> None:
    """Return to the parent of the active version, or to the one named. No request is dropped.

    Examples:
        foldback rollback
        foldback rollback --to p3 --reason "p4 repeats itself"
    """
    from console.commands.common import Session
    from console.names import full_version
    from console.terminal import err, out

    with Session() as session, err.status("rolling back"):
        if to:
            listed = session.run(session.client.list_policies())
            to = full_version(to, (policy.version for policy in listed.policies))
        policy = session.run(session.client.rollback(to, reason))
    out.print(f"serving [bold]{policy.version}[/]; training may promote again: 'foldback pause-training' holds it")
