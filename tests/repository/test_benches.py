"""Every bench says what it does, started as its docstring and the README start it, without anything on the path; and
leaves nothing running, however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
BENCHES = sorted(path.name for path in (ROOT / "bench").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("bench", BENCHES)
def test_it_starts_and_says_what_it_does(bench: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    said = subprocess.run(
        [sys.executable, f"bench/{bench}", "--help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert "--json" in said.stdout


WORKLOAD: dict[str, object] = {
    "threads": 1,
    "prompts": [[5, 6, 7], [8, 9]],
    "tokens": 6,
    "temperature": 1.0,
    "minibatches": 1,
    "learning_rate": 1e-4,
    "lora": {"r": 2},
    "lora_share": 1.0,
}


@pytest.mark.slow
def test_our_trainer_beside_trls_makes_its_update(tiny_model: Path, tmp_path: Path) -> None:
    """The figures come where TRL is installed; this half runs everywhere."""
    workload = tmp_path / "workload.json"
    workload.write_text(json.dumps(WORKLOAD | {"model": str(tiny_model)}))
    told = subprocess.run(
        [sys.executable, ROOT / "bench/harness/ppo_ours.py", workload],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'bench'}"},
        input="go\ngo\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert [json.loads(line)["tokens"] for line in told.stdout.splitlines()] == [12, 12]


SERVER = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL)
told = pathlib.Path(sys.argv[1])
told.with_suffix(".new").write_text(f"{os.getpid()} {child.pid}")
told.with_suffix(".new").rename(told)
print("serving", flush=True)
time.sleep(600)
"""
"""With a child, as an engine has its worker."""
BENCH = """
import asyncio, os, sys
from harness.processes import completed, process

async def serve(*command):
    async with process(*command):
        await asyncio.sleep(600)

how, *command = sys.argv[1:]
if how == "process":
    asyncio.run(serve(*command))
else:
    completed([sys.executable, *command], check=True, environment=dict(os.environ))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("how", ["process", "completed"])
def test_what_a_bench_has_started_ends_with_it(how: str, number: signal.Signals, tmp_path: Path) -> None:
    told = tmp_path / "pids"
    bench = subprocess.Popen(
        [sys.executable, "-c", BENCH, how, "-c", SERVER, str(told)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'bench'}:{ROOT}"},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not told.exists():
            assert bench.poll() is None, "it ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server, child = (psutil.Process(int(pid)) for pid in told.read_text().split())
        started = {server, child, *psutil.Process(bench.pid).children()}
        assert len(started) == 3, "and what holds them"
        bench.send_signal(number)
        bench.wait(60)
    finally:
        bench.kill()
        bench.wait()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
