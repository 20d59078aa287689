"""Several answers to one question, blind and in the order the server shuffled: the visitor puts the best first."""

import time

from nicegui import ui
from nicegui.events import KeyEventArguments, ValueChangeEventArguments

from console import votes
from console.names import short_version
from console.web.answers import grow
from console.web.composer import Composer
from console.web.layout import failures_shown, heading, words
from console.web.options import options_panel
from console.web.placing import Placing
from console.web.visit import Round, Visit

SHOW_EVERY_S = 0.05
MEDALS = {1: "best", 2: "2nd", 3: "3rd"}
MOST = 4


def compare_page(visit: Visit) -> None:
    ComparePage(visit).build()


class ComparePage:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._cards: list[Card] = []

    def build(self) -> None:
        heading(
            "Which answer is best?",
            "One model, several answers, in shuffled order. Your order teaches it what to prefer.",
        )
        self._composer = Composer("A question for it", self._ask)
        with ui.element("div").classes("fb-under"):
            options_panel(self._visit.options)
            words("label", "Answers").props("id=count").classes("fb-quiet")
            ui.toggle([2, 3, MOST], value=self._visit.options.count, on_change=self._count).props(
                "dense unelevated no-caps aria-labelledby=count"
            )
            words("span", "Keys: 1–4 place, = ties the next, Backspace undoes, Enter sends").classes("fb-keys")
        self._question = words("h2").classes("fb-asked")
        self._board = ui.element("div").classes("fb-board")
        with ui.element("div").classes("fb-row") as self._bar:
            self._order = words("output").classes("fb-order").props("aria-live=polite")
            self._tie = ui.button("Ties with the last", icon="drag_handle", on_click=self._toggle_tie).props(
                "outline no-caps"
            )
            self._undo = ui.button("Undo", icon="undo", on_click=self._take_back).props("flat no-caps")
            self._none = ui.button("None is acceptable", icon="block", on_click=lambda: self._send(none=True)).props(
                "flat no-caps color=negative"
            )
            self._submit = ui.button("Send the order", icon="check", on_click=self._send).props("unelevated no-caps")
        ui.keyboard(self._key, ignore=["input", "select", "textarea"], repeating=False)
        if self._visit.round:
            self._lay_out(self._visit.round)
        self._show()

    def _count(self, event: ValueChangeEventArguments[int]) -> None:
        self._visit.options.count = event.value

    async def _ask(self, question: str) -> None:
        visit, shown_at = self._visit, 0.0
        visit.round, self._question.text = None, question
        self._board.clear()
        self._show()
        count = visit.options.count
        with failures_shown(visit):
            async for response in grow(visit.observer.client, visit.request(question, count)):
                if visit.round is None:
                    visit.round = Round(question, response, Placing(count))
                    self._lay_out(visit.round)
                if time.monotonic() - shown_at > SHOW_EVERY_S:
                    shown_at = time.monotonic()
                    self._show()
            if visit.round:
                visit.round.complete = True
        self._show()
        ui.run_javascript("document.activeElement.blur()")  # the keys now place answers

    def _lay_out(self, compared: Round) -> None:
        self._question.set_text(compared.question)
        self._board.clear()
        with self._board:
            self._cards = [Card(self, number) for number in range(len(compared.response.answers))]

    def _show(self) -> None:
        compared = self._visit.round
        open_to_votes = bool(compared and compared.complete and not compared.sent)
        self._bar.set_visibility(bool(compared and compared.complete))
        if compared is None:
            return
        placing = compared.placing
        for card, answer in zip(self._cards, compared.response.answers, strict=True):
            text = answer.shown(answer.finished or compared.complete)
            card.show(text, placing.place_of(card.number), open_to_votes)
        self._order.set_text(compared.sent or str(placing) or "Place the best answer first.")
        self._tie.props("color=primary" if placing.tie_next else "color=grey")
        for button in (self._tie, self._undo, self._none, self._submit):
            button.set_visibility(open_to_votes)
        self._tie.set_enabled(bool(placing.tiers) and not placing.complete)
        self._undo.set_enabled(bool(placing.tiers))
        self._submit.set_enabled(placing.complete)

    def place(self, number: int) -> None:
        if self._visit.round and self._visit.round.complete and not self._visit.round.sent:
            self._visit.round.placing.place(number)
            self._show()

    def _toggle_tie(self) -> None:
        if self._visit.round:
            self._visit.round.placing.tie_next = not self._visit.round.placing.tie_next
            self._show()

    def _take_back(self) -> None:
        if self._visit.round:
            self._visit.round.placing.undo()
            self._show()

    async def _send(self, *, none: bool = False) -> None:
        compared = self._visit.round
        if compared is None or not compared.complete or compared.sent or not (none or compared.placing.complete):
            return
        response, ids = compared.response, [answer.candidate_id for answer in compared.response.answers]
        tiers = [] if none else [[ids[number] for number in tier] for tier in compared.placing.tiers]
        request = votes.ranking([response.token], self._visit.rater_id, tiers, rejected_all=none)
        with failures_shown(self._visit):
            what = "none acceptable" if none else f"order {compared.placing}"
            where = await self._visit.vote(request, what, response.version)
            compared.sent = f"✓ {what} · {where} · all by {short_version(response.version)}"
        self._show()
        self._composer.focus()

    async def _key(self, event: KeyEventArguments) -> None:
        if not event.action.keydown or event.modifiers.ctrl or event.modifiers.meta or event.modifiers.alt:
            return
        name = event.key.name
        if name in ("1", "2", "3", "4"):
            self.place(int(name) - 1)
        elif name == "=":
            self._toggle_tie()
        elif name == "Backspace":
            self._take_back()
        elif name == "Enter":
            await self._send()


class Card:
    """One answer; the whole card places it."""

    def __init__(self, page: ComparePage, number: int) -> None:
        self.number = number
        with (
            ui.element("article")
            .classes("fb-answer fb-candidate")
            .props(f'aria-label="Answer {number + 1}"') as self._card
        ):
            with ui.element("div").classes("fb-row"):
                words("span", f"Answer {number + 1}").classes("fb-quiet")
                self._place = words("span").classes("fb-medal")
            self._text = words("div").classes("fb-text")
            self._button = ui.button("Next best", on_click=lambda: page.place(number)).props("outline no-caps")

    def show(self, text: str, place: int, open_to_votes: bool) -> None:
        self._text.set_text(text)
        self._place.set_text(MEDALS.get(place, f"{place}th") if place else "")
        self._card.classes(add="fb-placed" if place else "", remove="" if place else "fb-placed")
        self._button.set_enabled(open_to_votes and not place)
