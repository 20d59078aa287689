"""The pages about feedback, side by side; and times as people say them."""

from datetime import datetime

from nicegui import ui

SECTIONS = {"/feedback": "Funnel", "/feedback/raters": "Raters", "/feedback/dead-letters": "Dead letters"}
UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def sections(here: str) -> None:
    with ui.element("nav").classes("fb-sections").props('aria-label="Feedback"'):
        for path, title in SECTIONS.items():
            link = ui.link(title, path)
            if path == here:
                link.classes("fb-here").props("aria-current=page")


def shown_time(iso: str) -> str:
    """An ISO time in this machine's zone."""
    return datetime.fromisoformat(iso).astimezone().strftime("%d %b %H:%M:%S")


def shown_age(seconds: float) -> str:
    for length, unit in UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"
