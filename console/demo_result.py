"""What a demo found, and which of its targets hold."""

import math
from collections import Counter
from dataclasses import dataclass, field

from console.measure import Measurement
from console.simulate import Tally

MIN_RISE_STD = 1.0
MIN_SWAPS = 3


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement on the held-out prompts."""

    elapsed_s: float
    """Since everything was up, at the end of the measurement."""
    version: str
    mean: float
    std: float
    standard_error: float
    answers: int
    example: str
    """An answer to the first prompt."""
    rated: int
    """Judgements that the users had sent by then."""
    words: float
    distinct_2: float

    @classmethod
    def of(cls, measured: Measurement, elapsed_s: float, rated: int) -> "Point":
        return cls(
            elapsed_s,
            measured.version,
            measured.mean,
            measured.std,
            measured.standard_error,
            len(measured.utilities),
            measured.texts[0],
            rated,
            measured.words,
            measured.distinct_2,
        )


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    value: float
    target: str
    holds: bool


@dataclass(slots=True)
class Result:
    """Filled while the demo runs."""

    persona: str
    points: list[Point] = field(default_factory=list)
    """The first is the base policy's; the last is the verdict's."""
    swaps: list[tuple[float, str]] = field(default_factory=list)
    """(elapsed seconds, version) as versions came into service, on trial or active, since learning began."""
    tally: Tally = field(default_factory=Tally)
    """What the simulated users met."""
    measured_versions: Counter[str] = field(default_factory=Counter)
    """Answers to measurements, by the version that made them."""
    measurement_failures: Counter[str] = field(default_factory=Counter)
    """Failed measurement requests by status code; none is retried."""

    def add(self, measured: Measurement, elapsed_s: float) -> None:
        self.points.append(Point.of(measured, elapsed_s, self.tally.rated))
        self.measured_versions += measured.versions

    @property
    def failed(self) -> Counter[str]:
        """Failed requests by status code: the users' and the measurements'."""
        return self.tally.failed + self.measurement_failures

    @property
    def base(self) -> Point:
        return self.points[0]

    @property
    def rise(self) -> float:
        """From the base policy to the last measurement, in standard deviations of a base policy's answer."""
        gained = self.points[-1].mean - self.base.mean
        return gained / self.base.std if self.base.std else math.nan

    @property
    def headroom(self) -> float:
        """The most that `rise` could be: utility ends at 1."""
        return (1 - self.base.mean) / self.base.std if self.base.std else math.nan

    @property
    def least_rise(self) -> float:
        """What is asked for: a deviation, or half of the headroom where a taste is nearly met from the start."""
        return min(MIN_RISE_STD, self.headroom / 2)

    @property
    def rise_error(self) -> float:
        """Standard error of `rise`, the deviation itself taken as exact."""
        error = math.hypot(self.points[-1].standard_error, self.base.standard_error)
        return error / self.base.std if self.base.std else math.nan

    @property
    def swapped(self) -> int:
        """Versions that were made active while requests ran, and then answered some."""
        answered = set(self.tally.versions) | set(self.measured_versions)
        return len({version for _, version in self.swaps} & answered)

    @property
    def targets(self) -> list[Target]:
        rise, least, failures = self.rise, self.least_rise, self.failed.total()
        return [
            Target("rise in standard deviations", rise, f">= {least:.2g} of {self.headroom:.2g}", rise >= least),
            Target("versions hot-swapped", self.swapped, f">= {MIN_SWAPS}", self.swapped >= MIN_SWAPS),
            Target("failed requests", failures, "= 0", failures == 0),
        ]

    @property
    def holds(self) -> bool:
        return all(target.holds for target in self.targets)
