"""`python -m trainer`: learns until SIGTERM or Ctrl-C."""

import fcntl
import logging
import os
import signal
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

from settings import Settings, SettingsError, load
from settings.rules import Constitution, load_rules

log = logging.getLogger("trainer")

_FINISH_S = 10.0
"""How long a turn that is under way may take to finish. Cut off, it is done again from the last checkpoint."""


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stdout)
    logging.getLogger("kafka").setLevel(logging.WARNING)
    try:
        settings = load()
        constitution = load_rules(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    # Before torch is loaded: idle threads sleep, where by default they would spin and take the cores from the server.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.trainer.threads))
    os.nice(settings.trainer.niceness)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    train(settings, constitution, stop)
    return 0


def train(settings: Settings, constitution: Constitution, stop: threading.Event) -> None:
    """Join feedback and learn from it until `stop`. Raises what ends the loop or the joiner."""
    import torch
    from prometheus_client import REGISTRY, start_http_server
    from transformers.utils.logging import disable_progress_bar

    from feedback.disk import DiskCollector
    from feedback.joiner import Joiner
    from feedback.store import PreferenceStore
    from registry import Registry
    from registry.metrics import RegistryCollector
    from trainer import metrics
    from trainer.announce import Announcer
    from trainer.collectors import JoinerCollector, StoreCollector
    from trainer.learner import Learner
    from trainer.loop import Trainer
    from trainer.own_rollouts import OwnRollouts
    from trainer.rollouts import ServedRollouts

    ours = settings.trainer
    disable_progress_bar()
    torch.set_num_threads(ours.threads)
    directory = settings.data_dir / "trainer"
    directory.mkdir(parents=True, exist_ok=True)
    lock = _only_trainer_of(directory)
    store = PreferenceStore(directory / "preferences.sqlite")
    joiner = Joiner(settings.feedback, store)
    REGISTRY.register(JoinerCollector(joiner))
    REGISTRY.register(StoreCollector(store))
    REGISTRY.register(DiskCollector(directory))
    metrics.show_bounds(ours)
    server, _ = start_http_server(ours.metrics_port, ours.metrics_host)
    print(f"metrics {ours.metrics_host}:{server.server_port}", flush=True)

    registry = Registry(settings.registry_url)
    REGISTRY.register(RegistryCollector(registry))
    with Announcer(settings.feedback, directory / "spool.sqlite") as announcer:
        announcer.follow(registry)
        # Feedback is joined from the first second, while the model is still being loaded.
        threads = ThreadPoolExecutor(2, thread_name_prefix="trainer")
        joining = threads.submit(joiner.run, stop)

        def learn() -> None:
            learner = Learner.create(settings.model.path, ours, constitution)
            served = ours.rollouts_from == "fleet"
            rollouts = ServedRollouts(ours, stop) if served else OwnRollouts(learner.backbone, ours)
            Trainer(ours, learner, store, registry, rollouts, directory, keep_versions=settings.registry.keep).run(stop)

        learning = threads.submit(learn)
        for task in (joining, learning):
            task.add_done_callback(lambda _: stop.set())
        stop.wait()
        _finish(joining, learning)
    lock.close()


def _only_trainer_of(directory: Path) -> IO[str]:
    """Holds until it is closed, or the process dies. Raises SystemExit if another trainer holds it."""
    lock = (directory / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"another trainer works in {directory}; stop it, or set another data_dir") from None
    return lock


def _finish(joining: Future[None], learning: Future[None]) -> None:
    joining.result(_FINISH_S)
    try:
        learning.result(_FINISH_S)
    except TimeoutError:
        log.info("stopped in the middle of a turn; the next start does it again")


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Not sys.exit: it would wait for the turn that is under way, which the checkpoints make needless.
    os._exit(status)
