"""What one check found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    """It works, and somebody should know."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    area: str
    level: Level
    said: str
    remedy: str = ""
    """What to do about it; "" where nothing is to be done."""


def ok(area: str, said: str) -> Finding:
    return Finding(area, Level.OK, said)


def note(area: str, said: str, remedy: str) -> Finding:
    return Finding(area, Level.NOTE, said, remedy)


def failed(area: str, said: str, remedy: str) -> Finding:
    return Finding(area, Level.FAILED, said, remedy)
