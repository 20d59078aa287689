"""`foldback config check`"""

from typing import Annotated

import typer

config = typer.Typer(name="config", help="Look at the settings.", no_args_is_help=True)


@config.callback()
def _config() -> None: ...


@config.command()
def check(as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False) -> None:
    """Print every setting with the value in force, and the rules; exit code 2 where one is refused.

    Values come from foldback.yaml (or the file that FOLDBACK_CONFIG names) and from FOLDBACK_* variables, which win.
    Secrets stay masked.

    Examples:
        foldback config check
        FOLDBACK_SERVER__PORT=7000 foldback config check --json
    """
    from console.commands.common import REFUSED, load_settings
    from console.config_view import print_json, print_rules, print_settings
    from console.errors import CommandError
    from settings import SettingsError
    from settings.rules import load_rules, rules_file

    settings = load_settings()
    try:
        constitution = load_rules(settings)
    except SettingsError as error:
        raise CommandError(str(error), REFUSED) from None
    if as_json:
        print_json(settings, constitution)
        return
    print_settings(settings)
    print_rules(constitution, rules_file(settings))
