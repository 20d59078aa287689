"""Ends the processes of `foldback up` when it dies, however it dies.

`foldback up` starts this beside its children and writes each child's process group to its stdin. When that pipe closes,
the parent is gone, `kill -9` included: the groups get SIGTERM, last started first, and SIGKILL after a grace period.
Unlike PR_SET_PDEATHSIG this reaches grandchildren (a broker binary, an engine's worker) and works beyond Linux.
"""

import os
import signal
import sys
import time

GRACE_S = 5.0
POLL_S = 0.05


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    groups = [int(line) for line in sys.stdin]
    for group in reversed(groups):
        send(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while any(send(group, 0) for group in groups) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for group in groups:
        send(group, signal.SIGKILL)


def send(group: int, number: int) -> bool:
    """Signal a process group; whether there was one."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
