"""`python -m server.probe PORT GAUGE`: exit code 0 while the metrics port says that this gauge is 1.

For kubelets where the ports speak TLS, which their gRPC probes do not. It loads next to nothing: they ask all the time.
"""

import sys
from urllib.request import urlopen

TIMEOUT_S = 4.0


def holds(port: int, gauge: str) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S) as answer:
            return f"{gauge} 1.0" in answer.read().decode().splitlines()
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not holds(int(sys.argv[1]), sys.argv[2]))
