"""What vLLM reads from its surroundings: import this before vllm. A variable that is already set is left alone."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from settings.cores import cores

# Its warnings are many and, here, wrong: "ParallelLMHead: Failed to load weights" at every swap of a tied model.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
# vLLM's children must not inherit a forked gRPC or torch.
os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")


@contextmanager
def of_children(cpu_threads: int, max_batch: int) -> Iterator[None]:
    """Processes started inside compute with `cpu_threads`, 0 leaving one core free, and sleep through Ctrl-C.

    Their threads are not pinned: a pinned one cannot step aside for a trainer on the same cores. Ctrl-C reaches all
    processes of a terminal; the server drains then, and needs its engine for it.
    """
    threads = cpu_threads or max(1, cores() - 1)
    ours = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
        # oneDNN keeps a kernel for every size of batch that it meets, 1,024 by default: most of what a server grows by
        # under load. This many are a layer's four matrices and the head, at every number of answers decoded together.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(5 * max(32, max_batch)),
    }
    added = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(added)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name in added:
            del os.environ[name]
