"""The portable engine: any Hugging Face causal LM, on CPU or one GPU."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from collections.abc import Sequence as Rows
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import TypeVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from registry.arithmetic import computed_in
from server.engines.aside import aside
from server.engines.base import Delta, EngineDead, GenerationRequest, SwapFailed, SwapMode, Weights
from server.engines.batch import Batch, Sequence
from server.engines.detokenize import TextStream
from server.engines.schedule import Schedule
from server.engines.weights import BadWeights, check_shapes, tensors
from settings.cores import cores
from settings.server import ServerSettings

log = logging.getLogger(__name__)
T = TypeVar("T")
Queue = asyncio.Queue[Delta | EngineDead]


class TransformersEngine:
    """See server.engines.base.Engine.

    One thread does all arithmetic, one job at a time: a token for the whole batch, a swap, or a score. What the
    event loop asks for therefore happens between two tokens, and nothing needs a lock.
    """

    name = "transformers"
    swap_mode: SwapMode = "weights"

    def __init__(self, model: str, settings: ServerSettings) -> None:
        self._name_or_path = model
        self._settings = settings
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._schedule = Schedule(settings.max_batch)
        self._queues: dict[Sequence, Queue] = {}
        self._work = asyncio.Event()
        self._version = ""
        self._dead: EngineDead | None = None
        self._death = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None

    async def start(self) -> None:
        try:
            await self._compute(self._load)
        except (OSError, ValueError, RuntimeError) as error:
            raise EngineDead(f"{self._name_or_path} could not be loaded: {error}") from error
        self._driver = asyncio.create_task(self._drive(), name="engine")

    def _load(self) -> None:
        torch.set_num_threads(self._settings.torch_threads or min(torch.get_num_threads(), cores()))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = AutoTokenizer.from_pretrained(self._name_or_path)
        self._model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            self._name_or_path, dtype=computed_in(self._settings.dtype)
        )
        self._model.to(device).eval()
        trained = getattr(self._model.config, "max_position_embeddings", self._settings.max_model_len)
        self._max_model_len = min(self._settings.max_model_len, trained)
        self._batch = Batch(self._model, self._eos_token_ids(), self._max_model_len)

    def _eos_token_ids(self) -> frozenset[int]:
        configured = self._model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return frozenset(i for i in (*ids, self._tokenizer.eos_token_id) if i is not None)

    @property
    def version(self) -> str:
        return self._version

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        if len(request.prompt_token_ids) >= self._max_model_len:
            raise ValueError(
                f"prompt of {len(request.prompt_token_ids)} tokens leaves no room in {self._max_model_len}"
            )
        if self._dead:
            raise self._dead
        queue: Queue = asyncio.Queue()
        sequences = [self._sequence(request, index) for index in range(request.candidate_count)]
        self._queues.update(dict.fromkeys(sequences, queue))
        self._schedule.add(sequences)
        self._work.set()
        try:
            unfinished = len(sequences)
            while unfinished:
                delta = await queue.get()
                if isinstance(delta, EngineDead):
                    raise delta
                unfinished -= delta.finish_reason is not None
                yield delta
        finally:
            for sequence in sequences:
                sequence.done = True
                self._queues.pop(sequence, None)

    def _sequence(self, request: GenerationRequest, index: int) -> Sequence:
        seed = request.sampling.seed
        # Candidates of one seed differ from one another, and the same request draws the same candidates again.
        random = Random(None if seed is None else f"{seed}/{index}")
        return Sequence(request, index, TextStream(self._decode, request.sampling.stop), random)

    def _decode(self, token_ids: Rows[int]) -> str:
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=True)
        return text

    async def _drive(self) -> None:
        try:
            while True:
                joining, leaving = self._schedule.pick(self._batch.rows)
                if not joining and not any(not row.done for row in self._batch.rows):
                    self._work.clear()
                    await self._work.wait()
                    continue
                for sequence, delta in await self._compute(lambda: self._step(joining, leaving)):  # noqa: B023
                    if queue := self._queues.get(sequence):
                        queue.put_nowait(delta)
        except Exception as error:
            log.exception("the engine failed and cannot go on")
            self._die(f"decoding failed: {error}")

    def _step(self, joining: list[Sequence], leaving: list[Sequence]) -> list[tuple[Sequence, Delta]]:
        return self._batch.step(joining, leaving, self._version)

    def _die(self, reason: str) -> None:
        self._dead = EngineDead(reason)
        self._death.set()
        for queue in set(self._queues.values()):
            queue.put_nowait(self._dead)

    async def died(self) -> str:
        await self._death.wait()
        return str(self._dead)

    async def load(self, weights: Weights) -> None:
        raise SwapFailed(f"{weights.version}: the transformers engine serves one version at a time; use vllm")

    async def unload(self, version: str) -> None:
        return

    async def swap(self, weights: Weights) -> None:
        if self._dead:
            raise self._dead
        try:
            if weights.adapter:
                raise BadWeights("an adapter alone; this engine takes merged weights")
            loaded = await aside(self._read, weights.directory)
        except BadWeights as error:
            raise SwapFailed(f"{weights.version}: {error}") from error
        await self._compute(lambda: self._replace(loaded, weights.version))

    def _read(self, directory: Path) -> dict[str, Tensor]:
        """All tensors of the version, in memory and checked, so that nothing can fail once copying begins."""
        loaded = dict(tensors(directory))
        own = self._model.state_dict()
        tied = frozenset(name for name, _ in self._model.named_parameters(remove_duplicate=False)) - frozenset(
            name for name, _ in self._model.named_parameters()
        )
        check_shapes(_shapes(loaded), _shapes(own), optional=tied)
        return {name: tensor for name, tensor in loaded.items() if name not in tied}

    @torch.no_grad()
    def _replace(self, loaded: dict[str, Tensor], version: str) -> None:
        own = self._model.state_dict()
        for name, tensor in loaded.items():
            own[name].copy_(tensor)
        self._version = version

    async def score(
        self, prompt_token_ids: tuple[int, ...], completion_token_ids: tuple[int, ...], version: str = ""
    ) -> tuple[float, ...]:
        if self._dead:
            raise self._dead
        return await self._compute(lambda: self._score(prompt_token_ids, completion_token_ids))

    @torch.inference_mode()
    def _score(self, prompt: tuple[int, ...], completion: tuple[int, ...]) -> tuple[float, ...]:
        ids_1L = torch.tensor([[*prompt, *completion]], device=self._model.device)
        # The logits at a position predict the next token; the last position predicts nothing that we ask about.
        logits_LV = self._model(input_ids=ids_1L, logits_to_keep=len(completion) + 1).logits[0, :-1]
        logprobs_LV = logits_LV.float().log_softmax(dim=-1)
        return tuple(logprobs_LV.gather(1, ids_1L[0, len(prompt) :, None])[:, 0].tolist())

    async def _compute(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    async def stop(self) -> None:
        if self._driver:
            self._driver.cancel()
            await asyncio.gather(self._driver, return_exceptions=True)
        self._die("the engine was stopped")
        await asyncio.to_thread(self._thread.shutdown)


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
