"""What vLLM reads from the environment: import this before vllm. A variable that is already set is left alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
# vLLM's children must not inherit a forked gRPC or torch.
os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")


@contextmanager
def cpu_threads(wanted: int) -> Iterator[None]:
    """Children started inside compute with `wanted` threads; 0 leaves one core to vLLM's scheduler.

    They are not pinned: a pinned thread cannot step aside for a trainer on the same cores.
    """
    threads = wanted or max(1, len(os.sched_getaffinity(0)) - 1)
    ours = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    added = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
