"""vLLM: AsyncLLM in this process, its core (scheduler and model) in a child process.

A swap runs pause → start → update → finish → resume. Requests in flight stay where they are and go on with the keys
and values that they have; what asks during a swap waits and then begins under the new version.
"""

import asyncio
import logging
import multiprocessing
import uuid
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoConfig

from server.engines import vllm_environment

# Above: what vLLM reads once, when it is imported.
# isort: split
from vllm import SamplingParams
from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs.engine import tokens_input
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from server.engines.base import Delta, EngineDead, GenerationRequest, Sampling, SwapFailed, VersionSpan, Weights
from server.engines.vllm_leash import Leash
from server.engines.vllm_seats import Seats
from server.engines.weights import BadWeights, check_shapes, shapes
from settings.server import ServerSettings

log = logging.getLogger(__name__)
USER, BACKGROUND = 0, 1
"""vLLM's priorities: the lower goes first."""
STOP_TIMEOUT_S = 30


class VllmEngine:
    """See server.engines.base.Engine."""

    name = "vllm"

    def __init__(self, model: str, settings: ServerSettings) -> None:
        self._model = model
        self._settings = settings
        self._seats = Seats(max(1, int(settings.max_batch * settings.vllm.rollout_share)))
        self._llm: AsyncLLM | None = None
        self._dead: EngineDead | None = None
        self._swapping = asyncio.Lock()
        self._swaps: set[asyncio.Task[None]] = set()
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._salt = 0

    async def start(self) -> None:
        """Blocks the event loop for as long as loading takes: nothing is served yet."""
        try:
            directory = _local(self._model)
            self._config = AutoConfig.from_pretrained(directory).get_text_config()
            self._expected_shapes = shapes(directory)
            self._serving = Weights("", directory)
            others = set(multiprocessing.active_children())
            with vllm_environment.of_children(self._settings.torch_threads):
                self._llm = AsyncLLM.from_engine_args(self._arguments(directory))
            ours = set(multiprocessing.active_children()) - others
            self._leash = Leash([process.pid for process in ours if process.pid])
            await self._llm.update_weight_version(self.version)
        except Exception as error:
            raise EngineDead(f"{self._model} could not be loaded: {error}") from error

    def _arguments(self, directory: Path) -> AsyncEngineArgs:
        ours = self._settings.vllm
        cpu: dict[str, Any] = {}
        if current_platform.is_cpu():
            # The worker in the core's own process, as on one GPU: vLLM's default here is a process more, which costs
            # 640 MB and, since the two wait for each other in a loop, a third more CPU a token when few are decoded.
            cpu["distributed_executor_backend"] = UniProcExecutor
            cpu["kv_cache_memory_bytes"] = int(ours.kv_cache_gib * 2**30)
        return AsyncEngineArgs(
            model=str(directory),
            dtype=self._settings.dtype,
            max_model_len=self.max_model_len,
            max_num_seqs=self._settings.max_batch,
            enforce_eager=ours.eager,
            gpu_memory_utilization=ours.gpu_memory_utilization,
            use_tqdm_on_load=False,
            scheduling_policy="priority",
            logprobs_mode="processed_logprobs",
            # By name: imported where the model runs, not here.
            worker_extension_cls="server.engines.vllm_transfer.WorkerExtension",
            weight_transfer_config={"backend": "foldback-files"},
            **cpu,
        )

    @property
    def version(self) -> str:
        return self._serving.version

    @property
    def max_model_len(self) -> int:
        trained: int = getattr(self._config, "max_position_embeddings", self._settings.max_model_len)
        return min(self._settings.max_model_len, trained)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        if len(request.prompt_token_ids) >= self.max_model_len:
            raise ValueError(f"prompt of {len(request.prompt_token_ids)} tokens leaves no room in {self.max_model_len}")
        seats = await self._seats.take(request.candidate_count) if request.background else 0
        try:
            await self._resumed.wait()
            async with aclosing(self._stream(request)) as outputs:
                async for output in outputs:
                    for completion in output.outputs:
                        if completion.finish_reason and seats:
                            self._seats.give_back(1)
                            seats -= 1
                        yield _delta(completion)
        except EngineDeadError as error:
            raise self._die("vLLM's processes died; their log says why") from error
        finally:
            self._seats.give_back(seats)

    def _stream(self, request: GenerationRequest) -> AsyncGenerator[RequestOutput, None]:
        stream: AsyncGenerator[RequestOutput, None] = self._alive().generate(
            self._prompt(request.prompt_token_ids),
            _parameters(request.sampling, request.candidate_count),
            request.request_id,
            priority=BACKGROUND if request.background else USER,
        )
        return stream

    def _prompt(self, token_ids: tuple[int, ...]) -> Any:
        # Cached prefixes are shared between prompts of one salt only. It counts swaps rather than name the version:
        # requests that straddle a swap leave keys of both policies under the salt they began with, and a later return
        # to that version must not find them.
        return tokens_input(list(token_ids), cache_salt=str(self._salt))

    async def swap(self, weights: Weights) -> None:
        # A caller that loses patience must not leave the engine paused or half-loaded.
        swap = asyncio.create_task(self._swap(weights), name=f"swap to {weights.version}")
        self._swaps.add(swap)
        swap.add_done_callback(self._swaps.discard)
        await asyncio.shield(swap)

    async def _swap(self, weights: Weights) -> None:
        async with self._swapping:
            llm = self._alive()
            try:
                await asyncio.to_thread(self._check, weights.directory)
            except BadWeights as error:
                raise SwapFailed(f"{weights.version}: {error}") from error
            self._resumed.clear()
            try:
                await self._command("pause", llm.pause_generation(mode="keep", clear_cache=False))
                failure = await self._load(llm, weights)
                if failure and (again := await self._load(llm, self._serving)):
                    raise self._die(f"{failure}; and {again}")
                await self._command("resume", llm.resume_generation())
            finally:
                self._resumed.set()
            if failure:
                raise SwapFailed(failure)

    def _check(self, directory: Path) -> None:
        tied = frozenset({"lm_head.weight"} if self._config.tie_word_embeddings else ())
        check_shapes(shapes(directory), self._expected_shapes, tied)

    async def _load(self, llm: AsyncLLM, weights: Weights) -> str:
        """Put `weights` into the paused engine; returns why they could not be loaded, or nothing. Raises EngineDead."""
        update = WeightTransferUpdateRequest({"directory": str(weights.directory.absolute())})
        try:
            await self._command("start", llm.start_weight_update())
            await self._command("update", llm.update_weights(update))
            await self._command("finish", llm.finish_weight_update(weights.version))
        except CommandFailed as error:
            return f"{weights.version} could not be loaded: {error}"
        self._serving = weights
        self._salt += 1
        return ""

    async def _command(self, name: str, command: Awaitable[None]) -> None:
        """Raises CommandFailed, or EngineDead when nobody knows what state vLLM is in."""
        try:
            async with asyncio.timeout(self._settings.swap_timeout_s):
                await command
        except TimeoutError as error:
            raise self._die(f"{name} took over {self._settings.swap_timeout_s:g} s (server.swap_timeout_s)") from error
        except EngineDeadError as error:
            raise self._die(f"vLLM's processes died at {name}; their log says why") from error
        except Exception as error:
            if name in ("pause", "resume"):
                raise self._die(f"{name} failed: {error}") from error
            raise CommandFailed(f"{name} failed: {error}") from error

    async def score(
        self, prompt_token_ids: tuple[int, ...], completion_token_ids: tuple[int, ...]
    ) -> tuple[float, ...]:
        """One forward pass. The last token is asked for as if it were sampled, so that a full context can be scored."""
        if not completion_token_ids:
            return ()
        *context, last = prompt_token_ids + completion_token_ids
        parameters = SamplingParams(
            temperature=1,
            max_tokens=1,
            prompt_logprobs=0,
            logprob_token_ids=[last],
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        async with self._swapping:  # the whole pass under one version
            try:
                [output] = [
                    output
                    async for output in self._alive().generate(
                        self._prompt(tuple(context)), parameters, f"score-{uuid.uuid4()}"
                    )
                ]
            except EngineDeadError as error:
                raise self._die("vLLM's processes died; their log says why") from error
        tokens = context[len(prompt_token_ids) :]
        positions = output.prompt_logprobs[len(prompt_token_ids) :]
        inner = [at[token].logprob for token, at in zip(tokens, positions, strict=True)]
        return (*inner, output.outputs[0].logprobs[0][last].logprob)

    def _alive(self) -> AsyncLLM:
        if self._dead:
            raise self._dead
        if self._llm is None:
            raise EngineDead("the engine is not started")
        return self._llm

    def _die(self, reason: str) -> EngineDead:
        """From now on every call raises what is returned, and so do the requests in flight."""
        if not self._dead:
            log.error("the engine cannot go on: %s", reason)
            self._dead = EngineDead(reason)
            if self._llm:
                self._llm.output_processor.propagate_error(EngineDeadError())
        return self._dead

    async def stop(self) -> None:
        if llm := self._llm:
            self._dead = self._dead or EngineDead("the engine was stopped")
            llm.output_processor.propagate_error(EngineDeadError())
            self._llm = None
            # Otherwise it takes the end of the processes for their death, and logs that.
            if llm.output_handler:
                llm.output_handler.cancel()
            await asyncio.to_thread(llm.shutdown, STOP_TIMEOUT_S)
            self._leash.let_go()


def _local(model: str) -> Path:
    """The directory of a model given by directory or by hub name."""
    return Path(model) if Path(model).is_dir() else Path(snapshot_download(model))


class CommandFailed(Exception):
    """vLLM could not do one step of a swap, and is alive."""


def _parameters(sampling: Sampling, candidates: int) -> SamplingParams:
    return SamplingParams(
        n=candidates,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stop),
        seed=sampling.seed,
        logprobs=0,  # of the sampled token alone
        output_kind=RequestOutputKind.DELTA,
    )


def _delta(completion: CompletionOutput) -> Delta:
    if completion.finish_reason not in (None, "stop", "length"):
        raise EngineDeadError()
    return Delta(
        candidate_index=completion.index,
        text=completion.text,
        token_ids=tuple(completion.token_ids),
        logprobs=tuple(at[token].logprob for token, at in zip(completion.token_ids, completion.logprobs, strict=True)),
        finish_reason=completion.finish_reason,
        version_spans=tuple(VersionSpan(s.version, s.start, s.end) for s in completion.weight_versions or ()),
    )
