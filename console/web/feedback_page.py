"""Where feedback goes: the funnel of all of it, and the way of each that this visit gave."""

import grpc
from nicegui import ui

from console.errors import explain
from console.names import short_version
from console.web.layout import REFRESH_S, heading, words
from console.web.sections import sections
from console.web.visit import Visit
from foldback.v1 import feedback_pb2

FLOW = {
    "responses": "answers that may be learned from",
    "accepted": "feedback accepted",
    "joined": "joined with its answer",
    "learned": "learned by a version",
}
ASIDE = {
    "waiting": "waiting for its answer's event",
    "superseded": "replaced by a later one",
    "retracted": "withdrawn",
    "erased": "erased at the rater's wish",
    "dead_feedback": "could not be used",
    "dead_lettered": "events of any kind in the dead-letter topic",
}
LOOKED_UP = 12
"""The newest feedbacks of a visit, whose state is asked for."""


def feedback_page(visit: Visit) -> None:
    FeedbackPage(visit).build()


class FeedbackPage:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._shown: dict[str, int] = {}

    def build(self) -> None:
        heading("Where feedback goes", "From an answer to a version that has learned from what was said about it.")
        sections("/feedback")
        self._funnel = ui.element("div").classes("fb-funnel")
        words("h2", "Yours in this tab")
        self._mine = ui.element("div").classes("fb-mine")
        with ui.element("form").classes("fb-row").on("submit", js_handler="(event) => event.preventDefault()"):
            box = ui.input("Look up a feedback id").props("outlined dense").classes("fb-grow")
            box.on("keydown.enter", lambda: self._look_up(box.value))
            ui.button("Look up", on_click=lambda: self._look_up(box.value)).props("outline no-caps")
        self._found = words("p").props("role=status")
        ui.timer(REFRESH_S, self._show)
        ui.timer(0, self._show, once=True)

    async def _show(self) -> None:
        funnel = self._visit.observer.funnel
        if funnel != self._shown or not funnel:
            self._shown = dict(funnel)
            self._funnel.clear()
            with self._funnel:
                _draw(funnel)
        rows = [(vote, await self._state(vote.feedback_id)) for vote in self._visit.votes[:LOOKED_UP]]
        self._mine.clear()
        with self._mine:
            if not rows:
                words("p", "Nothing yet: rate an answer in Chat or Compare.").classes("fb-quiet")
            for vote, state in rows:
                with ui.element("div").classes("fb-row fb-vote"):
                    words("span", vote.what)
                    words("span", f"on {short_version(vote.version)}").classes("fb-quiet")
                    words("span", state).classes("fb-push")

    async def _look_up(self, feedback_id: str) -> None:
        if feedback_id.strip():
            self._found.set_text(await self._state(feedback_id.strip()))

    async def _state(self, feedback_id: str) -> str:
        """What became of a feedback, for people."""
        try:
            status = await self._visit.observer.client.feedback_status(feedback_id)
        except grpc.aio.AioRpcError as error:
            return explain(error, self._visit.observer.address)
        state = feedback_pb2.FeedbackState.Name(status.state).removeprefix("FEEDBACK_STATE_").lower()
        by = f" by {short_version(status.policy_version)}" if status.policy_version else ""
        why = f": {status.reason}" if status.reason else ""
        return state.replace("_", "-") + by + why


def _draw(funnel: dict[str, int]) -> None:
    if not funnel:
        words("p", "The trainer does not answer; it keeps these counts.").classes("fb-quiet")
        return
    most = max((funnel.get(stage, 0) for stage in FLOW), default=0) or 1
    with ui.element("dl").classes("fb-bars"):
        for stage, meaning in FLOW.items():
            count = funnel.get(stage, 0)
            words("dt", meaning)
            with ui.element("dd"):
                ui.element("div").classes("fb-filled").style(f"width: {max(count / most * 100, 0.5):.1f}%")
                words("span", f"{count:,}")
    left = [f"{funnel[stage]:,} {meaning}" for stage, meaning in ASIDE.items() if funnel.get(stage)]
    words("p", "Besides: " + ", ".join(left) + "." if left else "None was lost on the way.").classes("fb-quiet")
    if funnel.get("dead_lettered"):
        ui.link("Why could they not be used?", "/feedback/dead-letters")
