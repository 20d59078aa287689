"""Checkpoints: one directory each, there as a whole or not at all.

`checkpoint-00000042/` is written aside, flushed and renamed; the latest is found by listing. An *anchor* is a
checkpoint whose policy is the version that training continues from: a rejected candidate's policy, value and optimisers
return to it. While that version is on trial, the checkpoint of the active one is kept too.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

_NAME = re.compile(r"checkpoint-(\d{8})")
_PROGRESS = "progress.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the trainer stands, apart from weights."""

    iteration: int = 0
    """PPO iterations so far; never goes back, so that no seed is used twice."""
    version: str = ""
    """The active version."""
    canary: str = ""
    """The version on trial; empty: none."""
    judgement_position: int = 0
    """Sequence of the last judgement that the reward model has taken in."""
    learned_position: int = 0
    """Sequence of the last judgement that an active version has learned from."""
    heard: int = -1
    """Iteration at which the reward model was last brought up to date; -1: never."""
    withdrawn: int = 0
    """Judgements retracted or erased, as of the reward model's last update."""
    calibrated_on: int = -1
    """Users' prompts that the scale of the reward rests on; -1: there is none yet."""
    budget: float = 0.0
    """PPO iterations that the judgements so far still allow."""
    unpublished: int = 0
    """PPO iterations since the anchor, or since a refusal that did not lead back there."""
    gated: int = 0
    """Iteration at which the gate last left a candidate undecided."""
    examined: int = 0
    """Iteration whose policy the gate last looked at."""
    gates: int = 0
    """Policies that it has looked at."""
    asked: tuple[str, ...] = ()
    """Fingerprints of the prompts that they answered: the next ones are asked the same, after a restart, too."""
    anchor: int = 0
    """Serial of the checkpoint whose policy is `continues_from`; 0: none."""
    fallback: int = 0
    """During a trial, serial of the checkpoint whose policy is `version`; else 0."""
    serial: int = 0
    """Number of this checkpoint."""

    @property
    def continues_from(self) -> str:
        """The version whose policy is trained further."""
        return self.canary or self.version


class Checkpoints:
    def __init__(self, root: Path, *, keep: int = 2) -> None:
        self._root = root
        self._keep = keep
        root.mkdir(parents=True, exist_ok=True)
        for torn in root.glob(".writing-*"):
            shutil.rmtree(torn)

    def save(self, progress: Progress, write: Callable[[Path], None], *, anchor: bool = False) -> Progress:
        """Write a checkpoint: `write` fills the directory. Returns `progress` with its serial (and anchor)."""
        serial = max(self._serials(), default=0) + 1
        progress = replace(progress, serial=serial, anchor=serial if anchor else progress.anchor)
        aside = self._root / f".writing-{serial:08d}"
        aside.mkdir()
        write(aside)
        (aside / _PROGRESS).write_text(json.dumps(asdict(progress)))
        _fsync_tree(aside)
        aside.rename(self.path(serial))
        _fsync(self._root)
        self._collect(progress)
        return progress

    def latest(self) -> Progress | None:
        """Where the newest checkpoint stands, or None before the first."""
        serial = max(self._serials(), default=0)
        if not serial:
            return None
        told = json.loads((self.path(serial) / _PROGRESS).read_text())
        return Progress(**told | {"asked": tuple(told.get("asked", ()))})

    def path(self, serial: int) -> Path:
        return self._root / f"checkpoint-{serial:08d}"

    def _serials(self) -> list[int]:
        names = (_NAME.fullmatch(path.name) for path in self._root.iterdir())
        return sorted(int(name[1]) for name in names if name)

    def _collect(self, progress: Progress) -> None:
        for serial in self._serials()[: -self._keep]:
            if serial not in (progress.anchor, progress.fallback):
                shutil.rmtree(self.path(serial))


def _fsync_tree(directory: Path) -> None:
    for path in [*directory.rglob("*"), directory]:
        _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
