"""The registry: publish versions, fetch them verified, move them through their life cycle."""

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from registry.artifact import ArtifactError, describe, fsync_tree, verify
from registry.journal import Entry, Journal, Taken, TrainingChange, Transition
from registry.lifecycle import ENDED, Move, PolicyState, RegistryState, TrainingState
from registry.manifest import CanaryPrompt, Manifest, version_name

Listener = Callable[[Transition], None]


class Registry:
    """Safe to share between threads and processes: artifacts never change, transitions are compare-and-swap."""

    def __init__(self, url: str) -> None:
        filesystem, root = fsspec.core.url_to_fs(url)
        self._fs: Any = filesystem
        self._root = str(root).rstrip("/")
        self._fs.makedirs(f"{self._root}/versions", exist_ok=True)
        self._journal = Journal(self._fs, self._root)
        self._lock = threading.RLock()
        self._state = RegistryState()
        self._entries: list[Entry] = []
        self._listeners: list[Listener] = []

    # Artifacts

    def publish(
        self,
        draft: Path,
        *,
        step: int,
        parent: str,
        base: str,
        base_digest: str,
        figures: dict[str, float],
        canary: Sequence[CanaryPrompt] = (),
    ) -> Manifest:
        """Make the files below `draft` an immutable version. `draft` is consumed.

        Publishing the same again (after a crash, say) gives the version that is there.

        Raises:
            ArtifactError: a file that a version may not hold.
        """
        files = describe(draft)
        manifest = Manifest(
            version=version_name(step, parent, base_digest, files),
            parent=parent,
            base=base,
            base_digest=base_digest,
            step=step,
            create_time=datetime.now(UTC),
            files=files,
            figures=figures,
            canary=tuple(canary),
        )
        if self._fs.exists(self._manifest_path(manifest.version)):
            shutil.rmtree(draft)
            return self.manifest(manifest.version)
        self._store(draft, manifest)
        return manifest

    def publish_base(self, base: str, base_digest: str, canary: Sequence[CanaryPrompt] = ()) -> Manifest:
        """The version before any learning: no files, the base model itself. Publishing it again changes nothing."""
        name = version_name(0, "", base_digest, {})
        if self._fs.exists(self._manifest_path(name)):
            return self.manifest(name)
        draft = self._draft()
        draft.mkdir(parents=True)
        return self.publish(draft, step=0, parent="", base=base, base_digest=base_digest, figures={}, canary=canary)

    def manifest(self, version: str) -> Manifest:
        """Raises ArtifactError: absent (never published, or collected) or bad_manifest."""
        try:
            data = self._fs.cat_file(self._manifest_path(version))
        except (FileNotFoundError, NotADirectoryError):
            raise ArtifactError("absent", f"{version} is not in the registry") from None
        try:
            manifest = Manifest.model_validate_json(data)
        except ValidationError as error:
            raise ArtifactError("bad_manifest", f"{version}: {error.errors()[0]['msg']}") from None
        if manifest.version != version:
            raise ArtifactError("bad_manifest", f"{version}: its manifest names {manifest.version}")
        return manifest

    def fetch(self, version: str, cache_dir: Path) -> Path:
        """A local directory with the version's files, all hashes checked. Raises ArtifactError."""
        manifest = self.manifest(version)
        if isinstance(self._fs, LocalFileSystem):
            directory = Path(self._version_path(version))
            verify(directory, manifest)
            return directory
        directory = cache_dir / version
        if directory.is_dir():
            verify(directory, manifest)
            return directory
        draft = cache_dir / f"{version}.{uuid.uuid4().hex}"
        draft.mkdir(parents=True)
        self._fs.get(f"{self._version_path(version)}/", f"{draft}/", recursive=True)
        verify(draft, manifest)
        return draft.rename(directory)

    def collect(self, keep: int) -> list[str]:
        """Delete the artifacts of ended versions but the newest `keep`; never the active one, its parent,
        the one to fall back to, or the base.

        Their transitions stay in the log.
        """
        state = self.state()
        spared = {state.active, state.canary, *state.good_predecessors()[-1:]}
        if state.active:
            spared.add(self.manifest(state.active).parent)
        ended = [
            version
            for version, status in state.states.items()
            if status in ENDED and version not in spared and not version.startswith("p000000-")
        ]
        present = [version for version in ended if self._fs.exists(self._manifest_path(version))]
        collected = present[: max(0, len(present) - keep)]
        for version in collected:
            self._fs.rm(self._manifest_path(version))
            self._fs.rm(self._version_path(version), recursive=True)
        return collected

    # Life cycle

    def state(self) -> RegistryState:
        """What all transitions up to this moment add up to; the caller's own copy. Raises OSError: out of reach."""
        with self._lock:
            self._catch_up()
            return self._state.copy()

    def transitions(self, after: int = 0) -> list[Transition]:
        """Every move with a sequence number above `after`, oldest first."""
        with self._lock:
            self._catch_up()
            return [move for entry in self._entries[max(after, 0) :] for move in entry.transitions]

    def transition(
        self,
        version: str,
        to: PolicyState,
        *,
        reason: str,
        actor: str,
        figures: dict[str, float] | None = None,
        expected_active: str | None = None,
    ) -> Transition:
        """Move `version` to `to`. In the same entry, promoting it retires the version that was active, and taking the
        active version down makes the last good one active again. A canary whose rival goes is rolled back with it.

        Args:
            expected_active: the version whose being active the decision rests on.

        Raises:
            IllegalTransition: the life cycle has no such move; ActiveChanged: `expected_active` is not active.
            ArtifactError: a version that is not in the registry would become active.
        """

        def decide(state: RegistryState) -> list[Move]:
            state.expect_active(expected_active)
            return self._possible(state.moves_to(version, to, reason))

        moves = self._append(decide, actor, figures or {})
        return next(move for move in moves if move.version == version)

    def rollback(
        self,
        to_version: str | None,
        *,
        reason: str,
        actor: str,
        figures: dict[str, float] | None = None,
        expected_active: str | None = None,
    ) -> str:
        """Take down what came last: the canary if there is one, else the active version; or all down to `to_version`.
        Returns the version that is active now: in the same entry, the last good one or `to_version`.

        Raises:
            IllegalTransition: nothing to return to, or `to_version` never served; ActiveChanged: as in `transition`.
            ArtifactError: it is no longer in the registry.
        """
        active = ""

        def decide(state: RegistryState) -> list[Move]:
            nonlocal active
            state.expect_active(expected_active)
            moves = self._possible(state.moves_back(to_version, reason))
            active = next((name for name, to, _ in moves if to is PolicyState.ACTIVE), state.active or "")
            return moves

        self._append(decide, actor, figures or {})
        return active

    def set_training_state(self, state: TrainingState, *, reason: str, actor: str) -> None:
        """Ask every trainer to run or to pause; `reason` and `actor` stay in the log."""
        with self._lock:
            while True:
                self._catch_up()
                if self._state.training_state == state:
                    return
                try:
                    change = TrainingChange(state, reason, actor, time.time())
                    self._journal.append(Entry(self._state.sequence + 1, training=change))
                except Taken:
                    continue
                self._catch_up()
                return

    @property
    def reachable(self) -> bool:
        """Whether the last look at the transitions succeeded."""
        return self._journal.reachable

    def listen(self, listener: Listener) -> None:
        """Call `listener` after each move that this process writes."""
        self._listeners.append(listener)

    # Inside

    def _possible(self, moves: list[Move]) -> list[Move]:
        """Raises ArtifactError unless the version that becomes active is there."""
        for name, to, _ in moves:
            if to is PolicyState.ACTIVE:
                self.manifest(name)
        return moves

    def _append(
        self,
        decide: Callable[[RegistryState], list[Move]],
        actor: str,
        figures: dict[str, float],
    ) -> tuple[Transition, ...]:
        with self._lock:
            while True:
                self._catch_up()
                sequence, moment = self._state.sequence + 1, time.time()
                moves = tuple(
                    Transition(sequence, name, self._state.states.get(name), to, why, actor, moment, figures)
                    for name, to, why in decide(self._state)
                )
                try:
                    self._journal.append(Entry(sequence, moves))
                except Taken:
                    continue
                self._catch_up()
                break
        for listener in self._listeners:
            for move in moves:
                listener(move)
        return moves

    def _catch_up(self) -> None:
        while entry := self._journal.read(self._state.sequence + 1):
            for move in entry.transitions:
                self._state.apply(move.version, move.to, move.reason)
            if entry.training:
                self._state.training_state = entry.training.state
            self._state.sequence = entry.sequence
            self._entries.append(entry)

    def _store(self, draft: Path, manifest: Manifest) -> None:
        target = self._version_path(manifest.version)
        if isinstance(self._fs, LocalFileSystem):
            (draft / "manifest.json").write_bytes(manifest.to_json())
            inside = self._draft()
            inside.parent.mkdir(exist_ok=True)
            shutil.move(draft, inside)
            fsync_tree(inside)
            inside.rename(target)
        else:
            for name in manifest.files:
                self._fs.put_file(str(draft / name), f"{target}/{name}")
            # Last: on an object store a version exists once its manifest does.
            self._fs.pipe_file(self._manifest_path(manifest.version), manifest.to_json())
            shutil.rmtree(draft)

    def _draft(self) -> Path:
        local = isinstance(self._fs, LocalFileSystem)
        parent = Path(self._root) / "drafts" if local else Path(fsspec.config.conf.get("tmp", "/tmp"))
        return parent / uuid.uuid4().hex

    def _version_path(self, version: str) -> str:
        return f"{self._root}/versions/{version}"

    def _manifest_path(self, version: str) -> str:
        return f"{self._version_path(version)}/manifest.json"
