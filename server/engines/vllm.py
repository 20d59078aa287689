"""vLLM: AsyncLLM in this process, its core (scheduler and model) in a child process."""

import multiprocessing
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoConfig

from registry.arithmetic import computed_in
from server.engines import vllm_environment

# Above: what vLLM reads once, when it is imported.
# isort: split
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs.engine import tokens_input
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from server.engines.base import Delta, EngineDead, GenerationRequest, Sampling, SwapMode, VersionSpan, Weights
from server.engines.vllm_adapters import Adapters
from server.engines.vllm_core import PROCESSES_DIED, Core
from server.engines.vllm_in_place import InPlace
from server.engines.vllm_metrics import BoundedMetrics
from server.engines.vllm_policies import Draw, Policies
from server.engines.vllm_scheduler import BACKGROUND, CHECK, USER, keep_check_seat
from server.engines.vllm_seats import Seats
from settings.server import ServerSettings


class VllmEngine:
    """See server.engines.base.Engine."""

    name = "vllm"

    def __init__(self, model: str, settings: ServerSettings) -> None:
        self._model = model
        self._settings = settings
        self._seats = Seats(max(1, int(settings.max_batch * settings.vllm.rollout_share)))
        self._core = Core(settings.swap_timeout_s)
        if settings.swap_mode == "auto":
            self.swap_mode: SwapMode = "weights" if current_platform.is_cpu() else "adapter"
        else:
            self.swap_mode = settings.swap_mode

    async def start(self) -> None:
        """Blocks the event loop for as long as loading takes: nothing is served yet."""
        try:
            directory = _local(self._model)
            self._config = AutoConfig.from_pretrained(directory).get_text_config()
            self._policies = self._hold(Weights("", directory))
            others = set(multiprocessing.active_children())
            with vllm_environment.of_children(self._settings.torch_threads, self._settings.max_batch):
                config = self._arguments(directory).create_engine_config()
                keep_check_seat(config.scheduler_config)
                llm = AsyncLLM.from_vllm_config(config, stat_loggers=[BoundedMetrics])
            self._core.begin(llm, [child for child in multiprocessing.active_children() if child not in others])
            await self._policies.start()
        except Exception as error:
            raise EngineDead(f"{self._model} could not be loaded: {error}") from error

    def _hold(self, base: Weights) -> Policies:
        if self.swap_mode == "weights":
            return InPlace(self._core, base, self._config.tie_word_embeddings)
        return Adapters(self._core, base, self._settings.vllm)

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
            dtype=computed_in(self._settings.dtype),
            max_model_len=self.max_model_len,
            max_num_seqs=self._settings.max_batch + 1,
            max_num_active_seqs=self._settings.max_batch,
            enforce_eager=ours.eager,
            gpu_memory_utilization=ours.gpu_memory_utilization,
            use_tqdm_on_load=False,
            scheduling_policy="priority",
            logprobs_mode="processed_logprobs",
            **self._policies.arguments(),
            **cpu,
        )

    async def died(self) -> str:
        return await self._core.died()

    @property
    def version(self) -> str:
        return self._policies.version

    @property
    def max_model_len(self) -> int:
        trained: int = getattr(self._config, "max_position_embeddings", self._settings.max_model_len)
        return min(self._settings.max_model_len, trained)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        if len(request.prompt_token_ids) >= self.max_model_len:
            raise ValueError(f"prompt of {len(request.prompt_token_ids)} tokens leaves no room in {self.max_model_len}")
        seats = await self._seats.take(request.candidate_count) if request.background else 0
        counts = [0] * request.candidate_count
        try:
            async with (
                self._policies.drawing(request.version) as draw,
                aclosing(self._stream(request, draw)) as outputs,
            ):
                async for output in outputs:
                    for completion in output.outputs:
                        counts[completion.index] += len(completion.token_ids)
                        if completion.finish_reason and seats:
                            self._seats.give_back(1)
                            seats -= 1
                        yield _delta(completion, draw, counts[completion.index])
        except EngineDeadError as error:
            raise self._core.die(PROCESSES_DIED) from error
        finally:
            self._seats.give_back(seats)

    def _stream(self, request: GenerationRequest, draw: Draw) -> AsyncGenerator[RequestOutput, None]:
        stream: AsyncGenerator[RequestOutput, None] = self._core.alive().generate(
            tokens_input(list(request.prompt_token_ids), cache_salt=draw.salt),
            _parameters(request.sampling, request.candidate_count),
            request.request_id,
            lora_request=draw.adapter,
            priority=BACKGROUND if request.background else USER,
        )
        return stream

    async def swap(self, weights: Weights) -> None:
        await self._policies.swap(weights)

    async def load(self, weights: Weights) -> None:
        await self._policies.load(weights)

    async def unload(self, version: str) -> None:
        await self._policies.unload(version)

    async def score(
        self, prompt_token_ids: tuple[int, ...], completion_token_ids: tuple[int, ...], version: str = ""
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
        async with self._policies.scoring(version) as draw:
            prompt = tokens_input(context, cache_salt=draw.salt)
            name = f"score-{uuid.uuid4()}"
            try:
                scoring = self._core.alive().generate(
                    prompt, parameters, name, lora_request=draw.adapter, priority=CHECK
                )
                [output] = [output async for output in scoring]
            except EngineDeadError as error:
                raise self._core.die(PROCESSES_DIED) from error
        tokens = context[len(prompt_token_ids) :]
        positions = output.prompt_logprobs[len(prompt_token_ids) :]
        inner = [at[token].logprob for token, at in zip(tokens, positions, strict=True)]
        return (*inner, output.outputs[0].logprobs[0][last].logprob)

    async def stop(self) -> None:
        await self._core.stop()


def _local(model: str) -> Path:
    """The directory of a model given by directory or by hub name."""
    return Path(model) if Path(model).is_dir() else Path(snapshot_download(model))


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


def _delta(completion: CompletionOutput, draw: Draw, tokens: int) -> Delta:
    """`tokens`: of this candidate so far."""
    if completion.finish_reason not in (None, "stop", "length"):
        raise EngineDeadError()
    spans: tuple[VersionSpan, ...] = ()
    if completion.finish_reason and draw.version is not None:
        spans = (VersionSpan(draw.version, 0, tokens),) if tokens else ()
    elif completion.finish_reason:
        spans = tuple(VersionSpan(s.version, s.start, s.end) for s in completion.weight_versions or ())
    return Delta(
        candidate_index=completion.index,
        text=completion.text,
        token_ids=tuple(completion.token_ids),
        logprobs=tuple(at[token].logprob for token, at in zip(completion.token_ids, completion.logprobs, strict=True)),
        finish_reason=completion.finish_reason,
        version_spans=spans,
    )
