"""The box in which a visitor writes: Enter sends, Shift+Enter breaks the line, and Stop ends an answer."""

import asyncio
from collections.abc import Awaitable, Callable

from nicegui import context, ui

ENTER = """(event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); emit("send"); }
  if (event.key === "Escape") { event.target.blur(); }
}"""

SLASH = """if (!window.foldbackSlash) {
  window.foldbackSlash = true;
  document.addEventListener("keydown", (event) => {
    const writing = event.target.closest("input, textarea, select");
    const box = document.querySelector(".fb-composer textarea");
    if (event.key !== "/" || writing || !box || document.querySelector(".q-dialog")) return;
    event.preventDefault();
    box.focus();
  });
}"""
"""In the browser, so that what is typed after it lands in the box."""


class Composer:
    """Calls `answer(question)`; while that runs, the button stops it."""

    def __init__(self, placeholder: str, answer: Callable[[str], Awaitable[None]]) -> None:
        self._answer = answer
        self._task: asyncio.Task[None] | None = None
        self._form = ui.element("form").classes("fb-composer")
        with self._form.on("submit", js_handler="(event) => event.preventDefault()"):
            self._box = ui.textarea(placeholder=placeholder).props(
                f'autogrow outlined dense autofocus aria-label="{placeholder}" input-class=fb-box'
            )
            self._box.on("keydown", self._pressed, js_handler=ENTER)
            self._button = ui.button(icon="arrow_upward", on_click=self._pressed).props(
                'round unelevated aria-label="Send"'
            )
        ui.run_javascript(SLASH)
        context.client.on_delete(self._stop)

    def focus(self) -> None:
        self._box.run_method("focus")

    async def _pressed(self) -> None:
        if self._task is not None:
            return self._stop()
        question = (self._box.value or "").strip()
        if not question:
            return self.focus()
        self._box.set_value("")
        self._show(icon="stop", label="Stop")
        self._task = asyncio.create_task(self._run(question))
        try:
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()
        finally:
            self._task = None
            self._show(icon="arrow_upward", label="Send")
        return None

    async def _run(self, question: str) -> None:
        with self._form:  # a task of its own does not know the page that it belongs to
            await self._answer(question)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _show(self, *, icon: str, label: str) -> None:
        if not self._button.is_deleted:
            self._button.props(f'icon={icon} aria-label="{label}"')
