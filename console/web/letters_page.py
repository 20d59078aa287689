"""The dead-letter topic: what could not be used, why, and another chance for what has been mended."""

from collections import Counter

from nicegui import ui

from console.asking import NotTold
from console.web.layout import heading, words
from console.web.ledger import NEWEST, Row
from console.web.sections import sections, shown_time
from console.web.visit import Visit

MEANINGS = {
    "UNDECODABLE": "not a message of ours, or cut short",
    "INVALID": "it breaks a rule of its kind",
    "UNKNOWN_SCHEMA": "of a schema that this release does not know",
    "ID_CONFLICT": "its id was already taken by another content",
    "RESPONSE_MISSING": "the answer it is about never came",
    "CLAIMS_MISMATCH": "its token was signed for another answer",
    "NO_CONSENT": "the conversation may not be learned from",
}
ALL = "all"


def letters_page(visit: Visit) -> None:
    LettersPage(visit).build()


class LettersPage:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._letters: list[Row] = []
        self._total = 0
        self._reason = ALL

    def build(self) -> None:
        heading(
            "Dead letters", "What could not be used, and why. Once its cause is mended, a letter can be sent again."
        )
        sections("/feedback/dead-letters")
        with ui.element("div").classes("fb-row"):
            self._filter = ui.toggle([ALL], value=ALL, on_change=lambda event: self._choose(event.value)).props(
                'dense unelevated no-caps aria-label="Reason"'
            )
            self._filter.set_visibility(False)
            self._again = ui.button("Look again", icon="refresh", on_click=lambda: self._read(fresh=True)).props(
                "flat no-caps"
            )
        self._status = words("p", "Reading the dead-letter topic …").props("role=status").classes("fb-quiet")
        self._list = words("ol").classes("fb-letters")
        ui.timer(0, self._read, once=True)

    async def _read(self, *, fresh: bool = False) -> None:
        self._again.props("loading")
        try:
            self._letters, self._total = await self._visit.ledger.letters(fresh=fresh)
        except NotTold as problem:
            self._letters, self._total = [], 0
            self._status.set_text(f"The dead-letter topic cannot be read from here: {problem}")
        else:
            self._status.set_text(self._summary())
        finally:
            self._again.props(remove="loading")
        counts = Counter(letter["reason"] for letter in self._letters)
        if self._reason not in counts:
            self._reason = ALL
        self._filter.set_options({ALL: "All", **{reason: f"{reason} {count}" for reason, count in counts.items()}})
        self._filter.set_value(self._reason)
        self._filter.set_visibility(bool(counts))
        self._show()

    def _summary(self) -> str:
        if not self._total:
            return "No dead letters: everything that was said could be used."
        older = f"; the newest {NEWEST} are shown" if self._total > NEWEST else ""
        return f"{self._total:,} dead letter{'s' if self._total > 1 else ''}{older}."

    def _choose(self, reason: str) -> None:
        self._reason = reason
        self._show()

    def _show(self) -> None:
        self._list.clear()
        with self._list:
            for letter in self._letters:
                if self._reason in (ALL, letter["reason"]):
                    self._letter(letter)

    def _letter(self, letter: Row) -> None:
        with words("li").classes("fb-letter"):
            with ui.element("div").classes("fb-row fb-wide"):
                words("h2", letter["reason"])
                words("span", MEANINGS.get(letter["reason"], "")).classes("fb-quiet")
                words("time", shown_time(letter["time"])).classes("fb-quiet fb-push")
            words("p", letter["detail"] or "No more is known.").classes("fb-reason")
            with words("details").classes("fb-quiet"):
                words("summary", "Where it came from")
                words("div", f"letter {letter['reference']}, from {letter['origin']}")
                words("div", f"feedback {letter['feedback_id']}" if letter["feedback_id"] else "no feedback id")
            if letter["replayable"]:
                ui.button("Send again", icon="replay", on_click=lambda: self._replay(letter["reference"])).props(
                    f'outline dense no-caps aria-label="Send letter {letter["reference"]} again"'
                )
            else:
                words("p", "Cannot be sent again: the event itself was left out.").classes("fb-quiet")

    async def _replay(self, reference: str) -> None:
        try:
            said = await self._visit.ledger.replay(reference)
        except NotTold as problem:
            ui.notify(str(problem), type="negative", multi_line=True, close_button="Dismiss", timeout=0)
        else:
            ui.notify(f"Letter {reference}: {said}. The trainer judges it afresh.", type="positive")
        await self._read(fresh=True)
