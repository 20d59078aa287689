"""`foldback doctor`"""

from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Check everything an installation needs, and say what to do about what is missing.

    Settings, model files, packages, disk, ports, brokers and topics, registry, server and keys, trainer, web page,
    clock. It changes nothing, and works whether Foldback runs or not. The exit code is 1 where anything has to be
    mended.

    Examples:
        foldback doctor
        foldback doctor --json | jq '.findings[] | select(.level != "ok")'
    """
    import asyncio

    from console.commands.common import load_settings
    from console.doctor.doctor import examine
    from console.doctor.view import healthy, print_findings, print_json
    from console.terminal import err

    settings = load_settings()
    with err.status("looking at broker, registry, server, trainer …"):
        findings = asyncio.run(examine(settings))
    (print_json if as_json else print_findings)(findings)
    if not healthy(findings):
        raise typer.Exit(1)
