"""vLLM's AsyncLLM as something that may have died: who asks it for something learns so, and who waits is told."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from multiprocessing.process import BaseProcess

from server.engines import vllm_environment  # noqa: F401 - what vLLM reads when it is imported

# isort: split
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from server.engines.base import EngineDead
from server.engines.vllm_leash import Leash

log = logging.getLogger(__name__)
PROCESSES_DIED = "vLLM's processes died; their log says why"
STOP_TIMEOUT_S = 30


class CommandFailed(Exception):
    """vLLM could not do what it was asked, and is alive."""


class Core:
    def __init__(self, command_timeout_s: float) -> None:
        self._timeout_s = command_timeout_s
        self._llm: AsyncLLM | None = None
        self._dead: EngineDead | None = None
        self._death = asyncio.Event()
        self._processes: Sequence[BaseProcess] = ()

    def begin(self, llm: AsyncLLM, processes: Sequence[BaseProcess]) -> None:
        """`processes` are those that `llm` computes in: the end of one is the end of all, noticed at once."""
        self._llm, self._processes = llm, processes
        self._leash = Leash([process.pid for process in processes if process.pid])
        for process in processes:
            asyncio.get_running_loop().add_reader(process.sentinel, self._ended)

    def _ended(self) -> None:
        self._forget_processes()
        self.die(PROCESSES_DIED)

    def _forget_processes(self) -> None:
        for process in self._processes:
            asyncio.get_running_loop().remove_reader(process.sentinel)
        self._processes = ()

    def alive(self) -> AsyncLLM:
        """Raises EngineDead."""
        if self._dead:
            raise self._dead
        if self._llm is None:
            raise EngineDead("the engine is not started")
        return self._llm

    async def died(self) -> str:
        await self._death.wait()
        return str(self._dead)

    def die(self, reason: str) -> EngineDead:
        """From now on every call raises what is returned, and so do the requests in flight."""
        if not self._dead:
            log.error("the engine cannot go on: %s", reason)
            self._dead = EngineDead(reason)
            self._death.set()
            if self._llm:
                self._llm.output_processor.propagate_error(EngineDeadError())
        return self._dead

    async def command(self, name: str, command: Awaitable[object], *, fatal: bool = False) -> None:
        """`command`, which changes vLLM.

        Raises:
            CommandFailed: it was refused.
            EngineDead: the processes died, or nobody knows what state vLLM is in: no answer in time, or a refusal of
                what is `fatal`.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await command
        except TimeoutError as error:
            raise self.die(f"{name} took over {self._timeout_s:g} s (server.swap_timeout_s)") from error
        except EngineDeadError as error:
            raise self.die(f"{PROCESSES_DIED} ({name})") from error
        except Exception as error:
            if fatal:
                raise self.die(f"{name} failed: {error}") from error
            raise CommandFailed(f"{name} failed: {error}") from error

    async def stop(self) -> None:
        if llm := self._llm:
            self._forget_processes()
            self._dead = self._dead or EngineDead("the engine was stopped")
            llm.output_processor.propagate_error(EngineDeadError())
            self._llm = None
            # Otherwise it takes the end of the processes for their death, and logs that.
            if llm.output_handler:
                llm.output_handler.cancel()
            await asyncio.to_thread(llm.shutdown, STOP_TIMEOUT_S)
            self._leash.let_go()
