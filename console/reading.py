"""What a person types: a key where there is a terminal, a line where there is none."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import typer

from console.terminal import out

CONTROL_C, CONTROL_D = "\x03", "\x04"


class Left(Exception):
    """The input has ended: Ctrl-D, or the end of a pipe."""


def read_line(prompt: str) -> str:
    """Raises Left at the end of the input."""
    try:
        return out.input(prompt)
    except EOFError:
        raise Left from None


def read_choice(prompt: str, choices: str) -> str:
    """One of `choices`, or "" for Enter: a single key on a terminal, else the first letter of a line. Raises Left."""
    while True:
        if sys.stdin.isatty():
            out.print(prompt, end="")
            key = typer.getchar()
            out.print("" if key in "\r\n" else key)
            if key == CONTROL_C:
                raise KeyboardInterrupt
            if key == CONTROL_D:
                raise Left
        else:
            key = read_line(prompt).strip()[:1]
        key = key.strip().lower()
        if key == "" or key in choices:
            return key
        out.print(f"[dim]{key!r} is none of {', '.join(choices)} or Enter[/]")


def edit(text: str) -> str:
    """The text as the user leaves it in $EDITOR; without a terminal or an editor, a line that replaces it."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor or not sys.stdin.isatty():
        return read_line("[dim]your version ▸[/] ")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "answer.md"
        path.write_text(text)
        subprocess.run([*editor.split(), str(path)], check=True)
        return path.read_text()
