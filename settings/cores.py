"""How many cores a process may compute on: what 0 threads come to."""


def cores() -> int:
    """Logical cores, within this process's CPU affinity and its container's limit.

    `os.cpu_count` counts the machine's: in a pod that is limited to 2 cores of a node's 64 the engine would start 63
    threads, which wait for each other while the kernel holds the pod back.
    """
    from loky import cpu_count  # where it is asked for: a pool of processes comes along

    return int(cpu_count())
