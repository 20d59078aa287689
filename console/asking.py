"""Asking other packages, each in a process of its own: the console imports neither Kafka nor the registry."""

import asyncio
import json
import sys
from typing import Any

TIMEOUT_S = 60.0


REFUSED_SETTINGS = 2
"""With this exit code a process ends where a setting is wrong; it says which and what to do."""


class NotTold(Exception):
    """The process failed; the message is what it said last."""

    def __init__(self, said: str, code: int = 1) -> None:
        super().__init__(said)
        self.settings_at_fault = code == REFUSED_SETTINGS


async def ask(module: str, *arguments: str) -> Any:
    """What `python -m module …` prints, as JSON, whatever its exit code. Raises NotTold."""
    said, complained, code = await _run(module, *arguments)
    try:
        return json.loads(said)
    except ValueError:
        raise NotTold(_last_word(complained), code) from None


async def tell(module: str, *arguments: str) -> str:
    """What `python -m module …` prints. Raises NotTold where it fails."""
    said, complained, code = await _run(module, *arguments)
    if code:
        raise NotTold(_last_word(complained or said), code)
    return said.strip()


async def _run(module: str, *arguments: str) -> tuple[str, str, int]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, complained = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    except TimeoutError:
        raise NotTold(f"no answer from 'python -m {module}' in {TIMEOUT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return said.decode(), complained.decode(errors="replace"), process.returncode


def _last_word(complained: str) -> str:
    """The line that says what is wrong: the first of a message, the last of a traceback."""
    lines = complained.strip().splitlines() or ["it said nothing"]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]
