"""A fault in each part of a running Foldback fires its alert in a real Prometheus; mended, the alert clears.

Only the waiting is shortened: each `for:` of the rules is three seconds here.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from feedback.embedded_broker import EmbeddedBroker
from registry import CanaryPrompt, PolicyState, Registry
from tests.helm.prometheus import Prometheus, prometheus
from tests.helm.rules import RULES
from tests.integration.stack import Stack
from tests.tiny_model import make_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PATIENCE_S = 3
WAIT_S = 120
NOT_OURS = {"FoldbackDiskFills"}
"""It speaks of the machine that the tests run on."""


def impatient(folder: Path) -> list[Path]:
    """The rules, with every `for:` cut to three seconds."""
    written = []
    for file in RULES:
        rules = yaml.safe_load(file.read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"] if "for" in rule):
            rule["for"] = f"{PATIENCE_S}s"
        written.append(folder / file.name)
        written[-1].write_text(yaml.safe_dump(rules))
    return written


class Watch:
    def __init__(self, running: Prometheus) -> None:
        self._running = running

    def firing(self) -> dict[str, set[str]]:
        """Alerts that fire, each with the jobs that it fires for."""
        jobs: dict[str, set[str]] = {}
        for sample in self._running.query('ALERTS{alertstate="firing"}'):
            jobs.setdefault(sample["metric"]["alertname"], set()).add(sample["metric"].get("job", ""))
        return {name: found for name, found in jobs.items() if name not in NOT_OURS}

    def wait(self, what: str, right: Callable[[dict[str, set[str]]], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not right(self.firing()):
            assert time.monotonic() < deadline, f"{what}: {self.firing()} fire"
            time.sleep(0.5)

    def clear(self) -> None:
        self.wait("nothing should fire", lambda firing: not firing)

    def only(self, alert: str, *jobs: str) -> None:
        self.wait(f"only {alert} for {jobs} should fire", lambda firing: firing == {alert: set(jobs)})


@contextmanager
def watching(stack: Stack, folder: Path) -> Iterator[Watch]:
    """Prometheus with impatient rules, once it has scraped everything and found nothing wrong."""
    jobs = {name: f"127.0.0.1:{stack.ports[f'{name.upper()}__METRICS_PORT']}" for name in ("server", "trainer")}
    with prometheus(folder, jobs, impatient(folder)) as running:
        deadline = time.monotonic() + WAIT_S
        while running.scrapes() <= PATIENCE_S + 1:
            assert time.monotonic() < deadline, "Prometheus does not scrape"
            time.sleep(0.5)
        watch = Watch(running)
        watch.clear()
        yield watch


def trainer_of(stack: Stack) -> int:
    """The trainer's process id: the child of `foldback up` that holds the lock of the trainer's directory."""
    [found] = [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdecimal() and _holds(folder, stack.data_dir / "trainer/lock")
    ]
    return found


def _holds(process: Path, file: Path) -> bool:
    try:
        return any(os.path.samefile(opened, file) for opened in (process / "fd").iterdir() if opened.exists())
    except OSError:
        return False


def break_the_engine(stack: Stack, model: Path, scratch: Path) -> None:
    """A version that fails its check becomes active, and the weights to return to are others than they were."""
    other = make_tiny_model(scratch / "other", seed=1)
    draft = scratch / "draft"
    (draft / "weights").mkdir(parents=True)
    shutil.copy(other / "model.safetensors", draft / "weights")
    registry = Registry((stack.data_dir / "registry").as_uri())
    base = registry.state().active
    assert base is not None
    manifest = registry.publish(
        draft,
        step=1,
        parent=base,
        base=registry.manifest(base).base,
        base_digest=registry.manifest(base).base_digest,
        figures={},
        canary=[CanaryPrompt(prompt_token_ids=[5, 6], completion_token_ids=[7, 8], logprobs=[-100.0, -100.0])],
    )
    (model / "model.safetensors").rename(model / "model.safetensors.aside")
    shutil.copy(other / "model.safetensors", model)
    registry.transition(manifest.version, PolicyState.CANDIDATE, reason="a fault, injected", actor="test")
    registry.transition(manifest.version, PolicyState.ACTIVE, reason="a fault, injected", actor="test")


def test_faults_fire_and_clear(tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    with EmbeddedBroker() as broker:
        kafka = {"FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS": broker.bootstrap_servers}
        stack = Stack(tmp_path / "data", model, "transformers", **kafka)
        stack.start()
        try:
            with watching(stack, tmp_path) as watch:
                broker.stop()
                watch.only("FoldbackBrokerAway", "server", "trainer")
                broker.start()
                watch.clear()

                registry = stack.data_dir / "registry"
                registry.rename(stack.data_dir / "registry-away")
                watch.only("FoldbackRegistryAway", "server", "trainer")
                (stack.data_dir / "registry-away").rename(registry)
                watch.clear()

                os.kill(trainer_of(stack), signal.SIGSTOP)
                watch.only("FoldbackTrainerGone", "")
                os.kill(trainer_of(stack), signal.SIGCONT)
                watch.clear()

                # Not learning meanwhile: it would want to continue from the version that is no good.
                os.kill(trainer_of(stack), signal.SIGSTOP)
                break_the_engine(stack, model, tmp_path)
                watch.wait(
                    "the dead engine should fire",
                    lambda firing: {"FoldbackEngineDead", "FoldbackNothingServes"} <= set(firing),
                )
                os.kill(trainer_of(stack), signal.SIGKILL)
                stack.stop()
                (model / "model.safetensors.aside").replace(model / "model.safetensors")
                stack.start()
                # Two swaps failed, before and at the new start: that alert looks half an hour back, rightly.
                watch.wait("the engine is well again", lambda firing: set(firing) <= {"FoldbackSwapsFail"})
        finally:
            stack.stop()
