"""0 threads are what a process may use, not what the machine has."""

import os
import subprocess
import sys

import pytest

ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from server.engines import vllm_environment
from settings.cores import cores
from settings.trainer import TrainerSettings
with vllm_environment.of_children(cpu_threads=0, max_batch=8):
    print(cores(), TrainerSettings().threads, os.environ["OMP_NUM_THREADS"])
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be held to a core there")
def test_a_process_that_is_held_to_a_core_computes_on_one() -> None:
    free = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", ONE_CORE], env=free, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "1"]
