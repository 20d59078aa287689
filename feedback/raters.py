"""Who weighs most: raters by how many of the judgements that count are theirs."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.database import open_reader

_QUERY = """
SELECT tenant, rater_id,
    sum(state = 'current' AND NOT retracted) AS judgements,
    sum(state = 'superseded'), sum(retracted), sum(state = 'dead'), min(receive_time), max(receive_time)
FROM feedback WHERE state != 'erased' GROUP BY tenant, rater_id ORDER BY judgements DESC, tenant, rater_id
"""


@dataclass(frozen=True, slots=True)
class RaterRow:
    tenant: str
    rater_id: str
    judgements: int
    """Those that count now."""
    share: float
    """Of all judgements that count, before the reward model's cap."""
    superseded: int
    """Opinions that the rater has changed: repeats on one response count once."""
    retracted: int
    dead: int
    first_time: float
    """Unix seconds."""
    last_time: float


@dataclass(frozen=True, slots=True)
class RatersReport:
    raters: int
    judgements: int
    heaviest: list[RaterRow]


def report_raters(store: Path, limit: int) -> RatersReport:
    """The `limit` raters with most judgements. Raises LookupError where there is no store."""
    if not store.exists():
        raise LookupError(f"{store}: no preference store; run this where the trainer's data directory is")
    with closing(open_reader(store)) as db:
        rows = db.execute(_QUERY).fetchall()
    total = sum(row[2] for row in rows)
    heaviest = [_row(row, total) for row in rows[:limit]]
    return RatersReport(len(rows), total, heaviest)


def _row(row: tuple[Any, ...], total: int) -> RaterRow:
    tenant, rater_id, judgements, *rest = row
    return RaterRow(tenant, rater_id, judgements, judgements / total if total else 0.0, *rest)
