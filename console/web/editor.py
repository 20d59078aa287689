"""A visitor writes an answer better than it was."""

from nicegui import ui

from console.web.layout import words


async def edited(text: str) -> str | None:
    """The visitor's version; None where it is unchanged, empty or not wanted."""
    with ui.dialog() as dialog, ui.card().classes("fb-dialog"):
        words("h2", "How should it have answered?")
        words("p", "Your version is what the model is shown as a good answer.").classes("fb-quiet")
        box = ui.textarea(value=text).props('outlined autofocus aria-label="Your version"').classes("fb-wide")
        box.on("keydown.ctrl.enter", lambda: dialog.submit(box.value))
        with ui.element("div").classes("fb-row fb-end"):
            ui.button("Cancel", on_click=lambda: dialog.submit(None)).props("flat no-caps")
            ui.button("Send my version", on_click=lambda: dialog.submit(box.value)).props("unelevated no-caps")
    try:
        written = (await dialog or "").strip()
    finally:
        dialog.delete()
    return written if written and written != text.strip() else None
