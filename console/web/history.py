"""Figures over time, in bounded memory."""

from collections.abc import Mapping
from dataclasses import dataclass

LIMIT = 1200


@dataclass(frozen=True, slots=True)
class Moment:
    time: float
    """Unix seconds."""
    figures: Mapping[str, float]


class History:
    """Moments in order of time. Where nothing changes only the ends are kept; a full history keeps every second one."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._moments: list[Moment] = []

    def add(self, time: float, figures: Mapping[str, float]) -> None:
        moments = self._moments
        if len(moments) > 1 and moments[-1].figures == moments[-2].figures == figures:
            moments[-1] = Moment(time, figures)
            return
        moments.append(Moment(time, figures))
        if len(moments) > self._limit:
            # The newest stays: it is what the page calls "now".
            self._moments = [*moments[:-1:2], moments[-1]]

    def of(self, name: str) -> list[tuple[float, float]]:
        """(time, value) wherever the figure was known."""
        return [(moment.time, moment.figures[name]) for moment in self._moments if name in moment.figures]

    def __len__(self) -> int:
        return len(self._moments)
