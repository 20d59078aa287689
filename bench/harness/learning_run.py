"""One run of the learning bench: a whole Foldback with simulated users in processes of its own, and what came of it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.processes import BENCH, DEFAULT_MODEL, ROOT, completed
from registry import Registry

GATE_FIGURES = ("gate_kl_nats", "gate_entropy_nats", "gate_base_perplexity")


@dataclass(frozen=True, slots=True)
class Arm:
    """How the users or the trainer differ from what is shipped."""

    options: tuple[str, ...] = ()
    """Of `foldback demo`."""
    environment: dict[str, str] = field(default_factory=dict)


ARMS = {
    "clean": Arm(),
    "noise 20 %": Arm(("--label-noise", "0.2")),
    "noise 40 %": Arm(("--label-noise", "0.4")),
    "hostile 5 %": Arm(("--users", "20", "--hostile", "1")),
    "friendly 20": Arm(("--users", "20")),
    "no penalty": Arm(environment={"FOLDBACK_TRAINER__REWARD__UNCERTAINTY_PENALTY": "0"}),
}
"""`friendly 20` is what the hostile arm is compared with: as many users, all of them sincere."""


@dataclass(frozen=True, slots=True)
class Run:
    persona: str
    arm: str
    seed: int
    minutes: float

    @property
    def name(self) -> str:
        arm = self.arm.replace(" %", "").replace(" ", "_")
        return f"{self.persona}-{arm}-seed{self.seed}-{self.minutes:g}min"


def result(run: Run, work: Path) -> dict[str, Any]:
    """What `run` found; a run that is on disk in `work` is not repeated.

    Raises:
        RuntimeError: the demo ended without a measurement; its last words.
    """
    kept = work / f"{run.name}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        found = _play(run, work)
        aside = kept.with_suffix(".tmp")
        aside.write_text(json.dumps(found, indent=1))
        aside.rename(kept)
    loaded: dict[str, Any] = json.loads(kept.read_text())
    return loaded


def _play(run: Run, work: Path) -> dict[str, Any]:
    arm = ARMS[run.arm]
    with tempfile.TemporaryDirectory(prefix="foldback-learning-") as folder:
        scratch, out = Path(folder) / "data", work / run.name
        command = ["demo", "--full", "--persona", run.persona, "--minutes", f"{run.minutes:g}"]
        command += ["--seed", str(run.seed), "--scratch", str(scratch), "--out", str(out), *arm.options]
        environment = {"FOLDBACK_TRAINER__SEED": str(run.seed), **arm.environment}
        ended = _python("console.cli", *command, check=False, **environment)
        if not (out / "demo.json").exists():
            raise RuntimeError(f"{run.name}: the demo measured nothing: {ended.stdout[-2000:]}{ended.stderr[-2000:]}")
        (out / "demo.txt").write_text(ended.stdout)
        shutil.copy(scratch / "logs" / "trainer.log", out)
        demo: dict[str, Any] = json.loads((out / "demo.json").read_text())
        return demo | {"policy": _policy(scratch)}


def _policy(scratch: Path) -> dict[str, float]:
    """Figures of the version that was active at the end."""
    registry = Registry(str(scratch / "registry"))
    active = registry.state().active
    assert active, "a demo begins with an active version"
    manifest = registry.manifest(active)
    figures = {name: manifest.figures[name] for name in GATE_FIGURES if manifest.files}
    weights = registry.fetch(active, scratch / "fetched") / "weights" if manifest.files else DEFAULT_MODEL
    told = _python("harness.speech", str(DEFAULT_MODEL), str(weights), check=True)
    speech: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return figures | speech


def _python(module: str, *arguments: str, check: bool, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(BENCH), str(ROOT), str(ROOT / "proto")])
    return completed(
        [sys.executable, "-m", module, *arguments], check, {**os.environ, "PYTHONPATH": paths, **environment}
    )
