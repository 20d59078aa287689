"""vLLM's processes: their end is noticed at once, and they do not outlive the server's."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from grpc_health.v1 import health_pb2

from server.engines.base import EngineDead, Sampling, Weights
from tests.server.calls import following, health_watch
from tests.server.conftest import connect, server_settings
from tests.server.engine_reference import DRAWN, complete, request

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PROMPT, COMPLETION = tuple(range(300, 320)), (40, 41, 300, 7)


async def test_a_dead_engine_is_noticed_while_idle_says_so_and_leaves_no_process(
    tmp_path: Path, tiny_model: Path, broker: str
) -> None:
    """A server of its own: there is no way back."""
    others = set(psutil.Process().children(recursive=True))
    settings = server_settings(tmp_path, tiny_model, broker, engine="vllm", swap_mode="adapter", dtype="bfloat16")
    async with connect(settings) as client:
        engine = client.server.engine
        ours = [child for child in psutil.Process().children(recursive=True) if child not in others]
        ours = [process for process in ours if "VLLM" in process.name()]
        [core] = [process for process in ours if "EngineCore" in process.name()]
        watch = health_watch(client.public)
        assert (await following(watch)).status == health_pb2.HealthCheckResponse.SERVING
        stream = asyncio.create_task(complete(engine, request(PROMPT, Sampling(1, 1, 0, max_tokens=480))))
        await asyncio.sleep(0)
        core.send_signal(signal.SIGKILL)
        assert (await following(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(EngineDead):
            await stream
        with pytest.raises(EngineDead):
            await complete(engine, request(PROMPT, DRAWN))
        with pytest.raises(EngineDead):
            await engine.score(PROMPT, COMPLETION)
        with pytest.raises(EngineDead):
            await engine.swap(Weights("p000001", tiny_model))
    _, alive = psutil.wait_procs(ours, timeout=20)
    assert not alive


ORPHANING = """
import asyncio, os, signal, sys
import psutil
from server.engines.vllm import VllmEngine
from settings.server import ServerSettings

async def main():
    engine = VllmEngine(sys.argv[1], ServerSettings(max_model_len=256))  # held: an engine that is collected stops
    await engine.start()
    print(*(child.pid for child in psutil.Process().children(recursive=True) if "VLLM" in child.name()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_vllm_does_not_outlive_a_killed_server(tiny_model: Path, tmp_path: Path) -> None:
    script = tmp_path / "orphaning.py"
    script.write_text(ORPHANING)
    command = [sys.executable, str(script), str(tiny_model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}) as server:
        assert server.stdout
        orphans = [psutil.Process(int(pid)) for pid in server.stdout.readline().split()]
        assert server.wait() == -signal.SIGKILL
    assert orphans
    _, alive = psutil.wait_procs(orphans, timeout=30)
    assert not alive
