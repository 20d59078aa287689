"""`python -m console.web`, as `foldback up` starts it."""

from console.commands.common import load_settings
from console.web.app import run_web

if __name__ == "__main__":
    run_web(load_settings())
