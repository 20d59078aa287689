"""What people said of policy versions: every judgement that tells how good a version's answers are."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from feedback.reading import score
from foldback.v1 import events_pb2


@dataclass(frozen=True, slots=True)
class Rating:
    sequence: int
    """Of the judgement, as in `Judgement`."""
    rater: str
    """Tenant and rater."""
    source: int
    """A FeedbackSource."""
    version: str
    value: float
    """0 to 1: a thumb (1 or 0), a scaled rating, 0 where all answers were rejected; against a rival, the share of
    comparisons that the version's answers won, ties half."""
    rival: str
    """The version whose answers were ranked against these; empty where the judgement is of one version alone."""
    receive_time: float
    """Unix seconds, by the server's clock."""


def read_ratings(db: sqlite3.Connection, versions: Sequence[str], after: int) -> list[Rating]:
    """Ratings of `versions` from judgements that count, with a sequence above `after`, oldest first.

    A ranking within one version says which answer was better and nothing of the version; a demonstration and a comment
    have no number.
    """
    marks = ", ".join("?" for _ in versions)
    rows = db.execute(
        "SELECT sequence, record FROM feedback f WHERE state = 'current' AND NOT retracted AND sequence > ? AND EXISTS"
        " (SELECT 1 FROM targets t JOIN responses r ON (r.tenant, r.response_id) = (t.tenant, t.response_id)"
        f" WHERE t.feedback = f.id AND r.policy_version IN ({marks})) ORDER BY sequence",
        (after, *versions),
    )
    decoded = ((sequence, events_pb2.FeedbackRecorded.FromString(value)) for sequence, value in rows)
    return [
        Rating(
            sequence=sequence,
            rater=f"{event.tenant}/{event.feedback.rater_id}",
            source=event.feedback.source,
            version=version,
            value=value,
            rival=rival,
            receive_time=event.receive_time.ToNanoseconds() / 1e9,
        )
        for sequence, event in decoded
        for version, value, rival in _opinions(event)
        if version in versions
    ]


def _opinions(event: events_pb2.FeedbackRecorded) -> Iterator[tuple[str, float, str]]:
    """(version, value, rival) of each version that the event is about."""
    feedback = event.feedback
    value = 0.0 if feedback.ranking.rejected_all else score(feedback)
    versions = {claim.policy_version for claim in event.claims}
    if value is not None:
        yield from ((version, value, "") for version in versions)
    elif feedback.HasField("ranking") and len(versions) == 2:
        yield from _comparison(event)


def _comparison(event: events_pb2.FeedbackRecorded) -> Iterator[tuple[str, float, str]]:
    """Each of two versions' share of wins over the pairs that a ranking makes of their answers."""
    version_of = {name: claim.policy_version for claim in event.claims for name in claim.candidate_ids}
    ranks: defaultdict[str, list[int]] = defaultdict(list)
    for rank, tier in enumerate(event.feedback.ranking.tiers):
        for name in tier.candidate_ids:
            ranks[version_of[name]].append(rank)
    if len(ranks) < 2:
        return
    (one, ours), (other, theirs) = ranks.items()
    won = sum((mine < yours) + 0.5 * (mine == yours) for mine in ours for yours in theirs) / (len(ours) * len(theirs))
    yield one, won, other
    yield other, 1 - won, one
