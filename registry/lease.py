"""A lease: something that one holder at a time has, and that lapses when the holder falls silent.

Its records are numbered files, created exclusively like the journal's entries: taking, keeping and giving back each
write the next one, and whoever finds the number taken was too late. The newest alone counts.

No clock is compared with another's. A holder counts its time from before it wrote its record; others count from when
they first saw that record, which is later; both on clocks that cannot be set (monotonic ones). So a holder knows that
its lease has lapsed before anybody else may take it, however the machines' clocks differ or jump.
"""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import fsspec

from registry.exclusive import create_exclusively


@dataclass(frozen=True, slots=True)
class Record:
    holder: str
    """Empty: given back."""
    ttl_s: float


class Lease:
    """One process's view of the lease `name`. Blocks on the filesystem; raises OSError when that does not answer."""

    def __init__(
        self, url: str, name: str, holder: str, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`holder` is this process, unlike any other; `clock` gives seconds and never goes back."""
        filesystem, root = fsspec.core.url_to_fs(url)
        self._fs: Any = filesystem
        self._folder = f"{str(root).rstrip('/')}/leases/{name}"
        self._fs.makedirs(self._folder, exist_ok=True)
        self._mine = Record(holder, ttl_s)
        self._clock = clock
        self._held_until = float("-inf")
        self._seen = (0, float("inf"))
        """The newest record's number, and when it was first seen here."""

    @property
    def held(self) -> bool:
        """It is ours for certain: nobody else can have taken it yet."""
        return self._clock() < self._held_until

    def acquire(self) -> bool:
        """Take it if it is free or has lapsed; keep it if it is ours. Returns whether it is ours now."""
        number, record = self._newest()
        if record and record.holder not in ("", self._mine.holder) and not self._lapsed(number, record):
            self._held_until = float("-inf")
            return False
        return self._write(number + 1, self._mine)

    def release(self) -> None:
        """Give it back if it is ours."""
        number, record = self._newest()
        self._held_until = float("-inf")
        if record and record.holder == self._mine.holder:
            self._write(number + 1, Record("", 0))

    def _lapsed(self, number: int, record: Record) -> bool:
        if self._seen[0] != number:
            self._seen = number, self._clock()
        return self._clock() - self._seen[1] >= record.ttl_s

    def _newest(self) -> tuple[int, Record | None]:
        """0 and nothing, if there is none. A record may be tidied away by its successor's writer: look again then."""
        while number := max(self._numbers(), default=0):
            with contextlib.suppress(FileNotFoundError):
                return number, Record(**json.loads(self._fs.cat_file(self._path(number))))
        return 0, None

    def _write(self, number: int, record: Record) -> bool:
        begun = self._clock()
        try:
            create_exclusively(self._fs, self._path(number), json.dumps(asdict(record)).encode())
        except FileExistsError:
            self._held_until = float("-inf")
            return False
        numbers = self._numbers()
        # While this process slept others may have written more, and tidied the number away that we found free.
        newest = number == max(numbers, default=0)
        self._held_until = begun + record.ttl_s if newest and record.holder else float("-inf")
        for old in numbers:
            if old < max(numbers):
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm_file(self._path(old))
        return newest

    def _numbers(self) -> list[int]:
        self._fs.invalidate_cache(self._folder)
        names = (str(path).rsplit("/", 1)[-1] for path in self._fs.ls(self._folder, detail=False))
        return [int(name.removesuffix(".json")) for name in names if name.endswith(".json")]

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:012d}.json"
