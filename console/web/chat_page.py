"""A conversation: answers as they are written, each with a thumb and an edit."""

import asyncio
import time

import grpc
from nicegui import ui
from nicegui.events import KeyEventArguments

from console import votes
from console.errors import explain
from console.names import short_version
from console.web.answers import Answer, grow
from console.web.composer import Composer
from console.web.editor import edited
from console.web.layout import failures_shown, words
from console.web.options import options_panel
from console.web.visit import Turn, Visit

SHOW_EVERY_S = 0.05
"""Text is sent to the browser no more often than this, however fast it is decoded."""
BOTTOM = "window.scrollTo({top: document.body.scrollHeight})"


def chat_page(visit: Visit) -> None:
    ChatPage(visit).build()


class ChatPage:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._cards: list[AnswerCard] = []

    def build(self) -> None:
        words("h1", "Chat").classes("fb-hidden")
        self._log = ui.element("div").classes("fb-log").props('role=log aria-live=polite aria-label="Conversation"')
        with self._log:
            self._welcome = ui.element("div").classes("fb-welcome")
            with self._welcome:
                words("h2", "Talk to it. It learns from what you rate.")
                words(
                    "p", "Ask anything. A thumb, or your own version of an answer, reaches the trainer within seconds."
                )
        with ui.element("div").classes("fb-dock"):
            self._composer = Composer("Ask anything", self._answer)
            with ui.element("div").classes("fb-under"):
                options_panel(self._visit.options)
                ui.button("New conversation", icon="restart_alt", on_click=self._start_over).props("flat dense no-caps")
                words("span", "Enter sends · Esc, then u up, d down, e edit, / write").classes("fb-keys")
        ui.keyboard(self._key, ignore=["input", "select", "textarea"], repeating=False)
        for turn in self._visit.turns:
            self._add(turn).show()

    async def _answer(self, question: str) -> None:
        visit, turn = self._visit, Turn(question)
        request = visit.request(question)
        visit.turns.append(turn)
        card, shown_at = self._add(turn), 0.0
        card.show()
        ui.run_javascript(BOTTOM)
        try:
            async for turn.response in grow(visit.observer.client, request):
                if time.monotonic() - shown_at > SHOW_EVERY_S:
                    shown_at = time.monotonic()
                    card.show()
        except grpc.aio.AioRpcError as error:
            turn.problem = explain(error, visit.observer.address)
        except asyncio.CancelledError:
            turn.problem = "stopped"
        finally:
            if turn.response is not None:
                # A stopped answer stays in the conversation, as far as it came.
                turn.kept, visit.conversation_id = turn.response.answers[0].text, turn.response.conversation_id
            turn.ended = True
            card.show()
        ui.run_javascript(BOTTOM)

    def _add(self, turn: Turn) -> "AnswerCard":
        self._welcome.set_visibility(False)
        with self._log:
            card = AnswerCard(self._visit, turn)
        self._cards.append(card)
        return card

    def _start_over(self) -> None:
        self._visit.start_over()
        self._cards.clear()
        for element in list(self._log.default_slot.children)[1:]:
            element.delete()
        self._welcome.set_visibility(True)
        self._composer.focus()

    async def _key(self, event: KeyEventArguments) -> None:
        if not event.action.keydown or event.modifiers.ctrl or event.modifiers.meta or event.modifiers.alt:
            return
        name = event.key.name
        if self._cards and self._cards[-1].ready:
            card = self._cards[-1]
            actions = {"u": lambda: card.rate(True), "d": lambda: card.rate(False), "e": card.edit}
            if name in actions:
                await actions[name]()


class AnswerCard:
    """One turn on the page."""

    def __init__(self, visit: Visit, turn: Turn) -> None:
        self._visit, self._turn = visit, turn
        words("div", turn.question).classes("fb-question")
        with ui.element("article").classes("fb-answer").props("aria-label=Answer"):
            self._text = words("div").classes("fb-text")
            with ui.element("div").classes("fb-actions") as self._actions:
                self._up = self._button("thumb_up_off_alt", "Good answer", lambda: self.rate(True))
                self._down = self._button("thumb_down_off_alt", "Bad answer", lambda: self.rate(False))
                self._button("edit", "Write it better", self.edit)
                self._status = words("span").classes("fb-quiet").props("role=status")
        self._actions.set_visibility(False)

    def _button(self, icon: str, label: str, action: object) -> ui.button:
        button = ui.button(icon=icon, on_click=action).props(f'flat round dense aria-label="{label}"')  # type: ignore[arg-type]
        return button.tooltip(label)

    @property
    def ready(self) -> bool:
        """There is an answer, and it has ended."""
        return bool(self._actions.visible)

    def show(self) -> None:
        """The turn as it is now."""
        turn = self._turn
        answer = turn.response.answers[0] if turn.response else Answer("")
        silent = turn.problem and not answer.text
        self._text.set_text(turn.kept or ("" if silent else answer.shown(turn.ended)))
        notes = [short_version(turn.response.version)] if turn.response else []
        notes += ["length limit"] if answer.cut else []
        notes += [turn.problem] if turn.problem else []
        self._actions.set_visibility(turn.ended)
        if turn.ended and not self._status.text:
            self._status.set_text(" · ".join(notes))
        self._mark()

    async def rate(self, up: bool) -> None:
        response = self._turn.response
        if response is None:
            return
        answer = response.answers[0]
        with failures_shown(self._visit):
            request = votes.thumbs(response.token, self._visit.rater_id, up, answer.candidate_id)
            where = await self._visit.vote(request, "thumb up" if up else "thumb down", response.version)
            self._turn.thumb = up
            self._mark()
            self._said(where)

    async def edit(self) -> None:
        response = self._turn.response
        if response is None:
            return
        text = await edited(self._turn.kept)
        if text is None:
            return
        with failures_shown(self._visit):
            answer = response.answers[0]
            request = votes.demonstration(response.token, self._visit.rater_id, answer.candidate_id, text)
            where = await self._visit.vote(request, "your version", response.version)
            self._turn.kept = text
            self._text.set_text(text)
            self._said(f"your version is {where}")

    def _said(self, where: str) -> None:
        assert self._turn.response is not None
        self._status.set_text(f"{short_version(self._turn.response.version)} · ✓ {where}")

    def _mark(self) -> None:
        for button, value, icon in ((self._up, True, "thumb_up"), (self._down, False, "thumb_down")):
            on = self._turn.thumb is value
            button.props(f"icon={icon if on else icon + '_off_alt'} aria-pressed={str(on).lower()}")
            button.props("color=primary" if on else "color=grey")
