"""Metrics: documented, named by Prometheus's rules, with labels that stay few."""

import pytest

from scripts.document_metrics import PAGE, Row, page, server_rows, trainer_rows

ROWS = [*server_rows(), *trainer_rows()]
UNBOUNDED = {"version", "rater", "rater_id", "user", "tenant", "conversation", "conversation_id", "request_id"}


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == page(), "run 'python scripts/document_metrics.py' and commit"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_is_named_and_described_by_the_rules(row: Row) -> None:
    assert row.name.startswith("foldback_")
    assert row.name.endswith("_total") is (row.kind == "counter")
    assert not row.name.endswith(("_ms", "_milliseconds", "_minutes", "_percent"))
    assert row.meaning.endswith(".")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_labels_are_bounded(row: Row) -> None:
    allowed = {"version"} if row.name == "foldback_policy_info" else set()
    assert not set(row.labels) & UNBOUNDED - allowed


def test_one_meaning_a_name() -> None:
    """Server and trainer may share a name; then type and labels are the same."""
    kinds = {row.name: (row.kind, row.labels) for row in ROWS}
    assert all((row.kind, row.labels) == kinds[row.name] for row in ROWS)
