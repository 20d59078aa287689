"""`python -m harness.resume STORE BROKER`: a joiner that starts on a store; prints seconds to an event, and MiB."""

import sys
import threading
import time
from pathlib import Path

import psutil

from feedback.joiner import Joiner
from feedback.store import PreferenceStore
from settings.feedback import FeedbackSettings


def main(path: str, broker: str) -> None:
    begun = time.perf_counter()
    store = PreferenceStore(Path(path))
    joiner, stop = Joiner(FeedbackSettings(bootstrap_servers=broker), store), threading.Event()
    thread = threading.Thread(target=joiner.run, args=(stop,))
    thread.start()
    while not joiner.state.consumed.total():
        time.sleep(0.005)
    seconds = time.perf_counter() - begun
    print(f"resumed {seconds:.3f} {psutil.Process().memory_info().rss / 2**20:.1f}", flush=True)
    stop.set()
    thread.join()
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
