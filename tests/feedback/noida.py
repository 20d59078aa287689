"""noida-db's Kafka, a second broker to test against: another author, other quirks."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from feedback.embedded_broker import _accepts
from settings.ports import free_port


@contextmanager
def noida_broker(folder: Path) -> Iterator[str]:
    """Bootstrap servers of a broker that keeps its data in `folder`."""
    port = free_port()
    binary = Path(str(files("noida_db").joinpath("noida-db")))
    binary.chmod(0o755)
    process = subprocess.Popen(
        [binary, "start", "--only", "kafka", "--data-dir", folder, "--kafka-port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while not _accepts(port):
            assert process.poll() is None, "noida-db ended at once"
            assert time.monotonic() < deadline, "noida-db does not come up"
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
