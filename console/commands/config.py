"""`foldback config check`"""

import typer

config = typer.Typer(name="config", help="Look at the settings.", no_args_is_help=True)


@config.callback()
def _config() -> None: ...


@config.command()
def check() -> None:
    """Print every setting with the value in force; exit code 2 where one is refused.

    Values come from foldback.yaml (or the file that FOLDBACK_CONFIG names) and from FOLDBACK_* variables, which win.
    """
    from console.commands.common import load_settings
    from console.config_view import print_settings

    print_settings(load_settings())
