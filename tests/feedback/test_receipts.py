"""What was acknowledged, by day."""

import os
import time
from pathlib import Path

from feedback.event import Durability
from feedback.receipts import Receipts, read_receipts


def test_written_before_the_answer_and_read_by_time(tmp_path: Path) -> None:
    receipts = Receipts(tmp_path)
    before = time.time()
    receipts.add([("a", Durability.BROKER), ("b", Durability.SPOOL)])
    found = list(read_receipts(tmp_path, 0, float("inf")))
    assert [(r.feedback_id, r.durability) for r in found] == [("a", Durability.BROKER), ("b", Durability.SPOOL)]
    assert [r.feedback_id for r in read_receipts(tmp_path, before - 1, time.time() + 1)] == ["a", "b"]
    assert list(read_receipts(tmp_path, time.time() + 1, float("inf"))) == []
    receipts.close()


def test_a_torn_line_is_passed_over_and_old_days_go(tmp_path: Path) -> None:
    (tmp_path / "2020-01-01.log").write_text("1577836800.0 old BROKER\n")
    receipts = Receipts(tmp_path)
    receipts.add([("a", Durability.BROKER)])
    receipts.close()
    [today] = tmp_path.glob("*.log")
    with today.open("a") as file:
        file.write(f"{time.time():.6f} cut")
    assert [r.feedback_id for r in read_receipts(tmp_path, 0, float("inf"))] == ["a"]
    assert os.stat(today).st_mode & 0o077 == 0
