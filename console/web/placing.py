"""Putting answers in an order one by one, ties included."""

from dataclasses import dataclass, field

from console.ranking import Tiers, format_ranking


@dataclass(slots=True)
class Placing:
    """Answers by their position on the page, from 0; the best are placed first."""

    count: int
    tiers: list[list[int]] = field(default_factory=list)
    tie_next: bool = False
    """The next answer joins the last tier."""

    def place(self, answer: int) -> None:
        """The next best, or as good as the last one placed; an answer that has its place keeps it."""
        if not 0 <= answer < self.count or self.place_of(answer):
            return
        if self.tie_next and self.tiers:
            self.tiers[-1].append(answer)
        else:
            self.tiers.append([answer])
        self.tie_next = False

    def undo(self) -> None:
        """Take back the last answer placed."""
        self.tie_next = False
        if self.tiers:
            self.tiers[-1].pop()
            if not self.tiers[-1]:
                self.tiers.pop()

    def place_of(self, answer: int) -> int:
        """1 for the best tier; 0 while it has no place."""
        return next((place for place, tier in enumerate(self.tiers, 1) if answer in tier), 0)

    @property
    def complete(self) -> bool:
        return sum(map(len, self.tiers)) == self.count

    def __str__(self) -> str:
        """In the notation of `foldback rank`, answers counted from 1."""
        shown: Tiers = tuple(tuple(answer + 1 for answer in tier) for tier in self.tiers)
        return format_ranking(shown)
