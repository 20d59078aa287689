"""Asking other packages, each in a process of its own: the console imports neither Kafka nor the registry."""

import asyncio
import json
import sys
from typing import Any

TIMEOUT_S = 60.0


class NotTold(Exception):
    """The process failed; the message is its last word."""


async def ask(module: str, *arguments: str, timeout_s: float = TIMEOUT_S) -> Any:
    """What `python -m module …` prints, as JSON. Raises NotTold."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, complained = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        raise NotTold(f"no answer from 'python -m {module}' in {timeout_s:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        return json.loads(said)
    except ValueError:
        lines = complained.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise NotTold(lines[0] if len(lines) <= 2 else lines[-1]) from None
