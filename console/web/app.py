"""Starts the page: one process, one observer, a visit for each browser tab."""

import uvicorn
from fastapi import FastAPI
from nicegui import app, ui

from console.stack import refuse_taken
from console.web.access import Access
from console.web.chat_page import chat_page
from console.web.compare_page import compare_page
from console.web.feedback_page import feedback_page
from console.web.layout import Frame, Page
from console.web.learning_page import learning_page
from console.web.ledger import Ledger
from console.web.letters_page import letters_page
from console.web.observer import Observer
from console.web.raters_page import raters_page
from console.web.versions_page import versions_page
from console.web.visit import Visit
from settings import Settings
from settings.console import LOOPBACK
from settings.ports import PortPicker

PAGES = {
    "/": Page("Chat", "chat_bubble_outline", chat_page),
    "/compare": Page("Compare", "compare_arrows", compare_page),
    "/learning": Page("Learning", "insights", learning_page),
    "/versions": Page("Versions", "account_tree", versions_page),
    "/feedback": Page("Feedback", "how_to_vote", feedback_page),
    "/feedback/raters": Page("Raters", "", raters_page),
    "/feedback/dead-letters": Page("Dead letters", "", letters_page),
}
STOP_S = 2
"""Open tabs get so long to say good-bye."""


def run_web(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        CommandError: the port is taken.
    """
    console, port = settings.console, settings.console.web_port
    if port:
        refuse_taken(console.web_host, port, "console.web_port", "FOLDBACK_CONSOLE__WEB_PORT")
    else:
        with PortPicker() as picker:
            port = picker.pick(console.web_host)
    observer, ledger = Observer(settings), Ledger()

    async def visit() -> None:
        await Frame(Visit(observer, ledger, console.rater_id), PAGES).build()

    app.on_startup(observer.start)
    app.on_shutdown(observer.stop)
    served = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    served.add_middleware(Access, token=console.web_token.get_secret_value(), names={*LOOPBACK, console.web_host})
    ui.run_with(
        served,
        root=visit,
        title="Foldback",
        favicon="🔁",
        dark=None,
        language="en-US",
        binding_refresh_interval=None,
        tailwind=False,
        show_welcome_message=False,
    )
    print(f"web page http://{console.web_host}:{port}, for the server at {observer.address}", flush=True)
    uvicorn.run(served, host=console.web_host, port=port, log_level="warning", timeout_graceful_shutdown=STOP_S)
