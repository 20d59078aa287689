"""What git tracks here, and how its tools are called."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
"""Where the environment that runs the tests keeps its commands."""


def tracked(*patterns: str) -> list[Path]:
    """Tracked files that exist, relative to the root; all of them without patterns."""
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, check=True)
    names = listed.stdout.decode().split("\0")
    return [Path(name) for name in names if name and (ROOT / name).is_file()]


def text(path: Path) -> str | None:
    """A tracked file's text, or None where it is binary."""
    try:
        return (ROOT / path).read_text()
    except UnicodeDecodeError:
        return None


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a check; its output is the assertion's message when it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
