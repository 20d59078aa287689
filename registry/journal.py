"""The life-cycle log: one small file an entry, created exclusively, so that any number of processes agree on it."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from registry.exclusive import create_exclusively
from registry.lifecycle import PolicyState, TrainingState


@dataclass(frozen=True, slots=True)
class Transition:
    """One version's move. Moves that happen together (promote and retire) share a sequence number."""

    sequence: int
    version: str
    before: PolicyState | None
    to: PolicyState
    reason: str
    actor: str
    time: float
    """Seconds since the epoch."""
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingChange:
    """Somebody asked the trainers to run or to pause."""

    state: TrainingState
    reason: str
    actor: str
    time: float


@dataclass(frozen=True, slots=True)
class Entry:
    sequence: int
    transitions: tuple[Transition, ...] = ()
    training: TrainingChange | None = None

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Entry":
        raw = json.loads(data)
        moves = (
            Transition(
                **{
                    **move,
                    "before": PolicyState(move["before"]) if move["before"] else None,
                    "to": PolicyState(move["to"]),
                }
            )
            for move in raw["transitions"]
        )
        training = raw["training"]
        return cls(raw["sequence"], tuple(moves), TrainingChange(**training) if training else None)


class Taken(Exception):
    """Another process wrote this entry first; read it and decide again."""


class RegistryAway(OSError):
    """What was read before is no longer there: a volume that is not mounted, say."""


class Journal:
    def __init__(self, filesystem: Any, root: str) -> None:
        self._fs = filesystem
        self._folder = f"{root}/transitions"
        self._fs.makedirs(self._folder, exist_ok=True)
        self.reachable = True
        """Whether the last look succeeded."""

    def read(self, sequence: int) -> Entry | None:
        """Entry `sequence` (they start at 1), or None if it is not written yet.

        Raises:
            RegistryAway: the entry before it has vanished, so that this one's absence says nothing.
            OSError: the filesystem does not answer.
        """
        self.reachable = False
        entry = self._read(sequence)
        self.reachable = True
        return entry

    def _read(self, sequence: int) -> Entry | None:
        try:
            return Entry.from_json(self._fs.cat_file(self._path(sequence)))
        except FileNotFoundError:
            before = self._path(sequence - 1)
            if sequence > 1 and not self._fs.exists(before):
                raise RegistryAway(f"{before} is gone; is the registry's volume mounted?") from None
            return None

    def append(self, entry: Entry) -> None:
        """Write `entry` if its number is free. Raises Taken."""
        path = self._path(entry.sequence)
        try:
            create_exclusively(self._fs, path, entry.to_json())
        except FileExistsError:
            raise Taken(path) from None

    def _path(self, sequence: int) -> str:
        return f"{self._folder}/{sequence:012d}.json"
