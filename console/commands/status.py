"""`foldback status`"""

from typing import Annotated

import typer


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Show what is served, whether it is well, and what has been learned from how much feedback.

    The exit code is 1 where the server is not serving.

    Examples:
        foldback status
        foldback status --json | jq .funnel
    """
    import asyncio

    from console.commands.common import load_settings
    from console.status import gather
    from console.status_view import print_json, print_report

    report = asyncio.run(gather(load_settings()))
    (print_json if as_json else print_report)(report)
    if not report.healthy:
        raise typer.Exit(1)
