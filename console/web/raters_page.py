"""Who weighs most: raters by the judgements of theirs that count."""

import time

from nicegui import ui

from console.asking import NotTold
from console.web.layout import heading, words
from console.web.ledger import HEAVIEST, Row
from console.web.sections import sections, shown_age
from console.web.visit import Visit

EVERY_S = 15.0
COLUMNS = ("Rater", "Judgements", "Share", "Changed", "Withdrawn", "Unusable", "Last")


def raters_page(visit: Visit) -> None:
    RatersPage(visit).build()


class RatersPage:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit

    def build(self) -> None:
        heading("Raters", "Pseudonyms, the heaviest first. The reward model caps what one rater can weigh.")
        sections("/feedback/raters")
        self._status = words("p", "Reading the preference store …").props("role=status").classes("fb-quiet")
        with ui.element("div").classes("fb-scroll").props('tabindex=0 role=region aria-label="Raters"'):
            self._table = words("table").classes("fb-table")
        ui.timer(EVERY_S, self._read, immediate=True)

    async def _read(self) -> None:
        try:
            told = await self._visit.ledger.raters()
        except NotTold as problem:
            self._table.clear()
            self._status.set_text(f"The preference store cannot be read from here: {problem}")
            return
        more = f"; the heaviest {HEAVIEST} are shown" if told["raters"] > HEAVIEST else ""
        self._status.set_text(f"{told['judgements']:,} judgements that count, of {told['raters']:,} raters{more}.")
        self._table.clear()
        with self._table:
            self._draw(told["heaviest"])

    def _draw(self, rows: list[Row]) -> None:
        with words("thead"), words("tr"):
            for title in COLUMNS:
                words("th", title).props("scope=col")
        with words("tbody"):
            most = max((row["share"] for row in rows), default=0) or 1
            for row in rows:
                mine = row["rater_id"] == self._visit.rater_id
                name = row["rater_id"] + (" (this browser)" if mine else "")
                tenant = "" if row["tenant"] == "default" else f"{row['tenant']}/"
                with words("tr").classes("fb-mine-row" if mine else ""):
                    words("th", tenant + name).props("scope=row")
                    words("td", f"{row['judgements']:,}")
                    with words("td"):
                        words("span", f"{row['share']:.1%}")
                        ui.element("div").classes("fb-share").style(f"width: {row['share'] / most:.0%}")
                    for figure in ("superseded", "retracted", "dead"):
                        words("td", f"{row[figure]:,}" if row[figure] else "–")
                    words("td", shown_age(time.time() - row["last_time"]))
