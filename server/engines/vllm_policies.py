"""How vLLM holds policy versions: what the two swap modes have in common."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from vllm.lora.request import LoRARequest

from server.engines.base import SwapMode, Weights


@dataclass(frozen=True, slots=True)
class Draw:
    """What a request has to carry so that its tokens come from the right version."""

    salt: str | None = None
    """Cached prefixes are shared between prompts of one salt only."""
    adapter: LoRARequest | None = None
    version: str | None = None
    """That of every token; None where vLLM itself tells, token by token."""


_unfinished: set[asyncio.Task[None]] = set()


async def to_the_end(change: Coroutine[Any, Any, None]) -> None:
    """Awaits `change`, which goes on by itself when the caller loses patience: nothing stays half done."""
    task = asyncio.create_task(change)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    await asyncio.shield(task)


class Policies(Protocol):
    """See server.engines.base.Engine for swap, load and unload."""

    swap_mode: SwapMode

    def arguments(self) -> dict[str, Any]:
        """Of vLLM's AsyncEngineArgs."""
        ...

    async def start(self) -> None:
        """The base model is loaded."""
        ...

    @property
    def version(self) -> str: ...

    async def swap(self, weights: Weights) -> None: ...

    async def load(self, weights: Weights) -> None: ...

    async def unload(self, version: str) -> None: ...

    def drawing(self, version: str) -> AbstractAsyncContextManager[Draw]:
        """Around a request, from before vLLM hears of it until it has ended."""
        ...

    def scoring(self, version: str) -> AbstractAsyncContextManager[Draw]:
        """The same, with one version from beginning to end."""
        ...
