"""The frame around every page: name, navigation, which version serves, and what is wrong if something is."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import resources

import grpc
from nicegui import context, ui
from nicegui.elements.mixins.text_element import TextElement

from console.errors import explain
from console.names import short_version
from console.web.visit import Visit

REFRESH_S = 2.0
RATER = """(document.documentElement.dataset.connected = "yes", localStorage.foldbackRater ||= "%s")"""
"""A browser keeps one pseudonym; a proposal of ours is taken the first time. The mark: from now on the page listens."""
KNOWN_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    icon: str
    """"" for a page that another one links to."""
    build: Callable[[Visit], None]


class Frame:
    def __init__(self, visit: Visit, pages: Mapping[str, Page]) -> None:
        self._visit, self._pages = visit, pages

    async def build(self) -> None:
        ui.add_css(resources.files(__package__).joinpath("style.css").read_text())
        ui.colors(primary="#4f46e5", positive="#15803d", negative="#dc2626", warning="#b45309")
        links: dict[str, ui.link] = {}
        with ui.element("header").classes("fb-header"), ui.element("div").classes("fb-bar"):
            ui.link("Foldback", "/").classes("fb-brand")
            with ui.element("nav").classes("fb-nav").props('aria-label="Pages"'):
                for path, page in ((path, page) for path, page in self._pages.items() if page.icon):
                    with ui.link("", path) as links[path]:
                        ui.icon(page.icon).props("aria-hidden=true")
                        ui.label(page.title)
            self._pill = ui.link("", "/versions").classes("fb-pill")
        self._alert = ui.element("div").classes("fb-alert").props("role=alert")
        with self._alert:
            self._problem = ui.label()

        def mark(path: str) -> None:
            path = path.split("?")[0].split("#")[0]
            if path in self._pages:
                ui.page_title(f"{self._pages[path].title} · Foldback")
            for target, link in links.items():
                here = path == target or (target != "/" and path.startswith(f"{target}/"))
                link.classes(add="fb-here" if here else "", remove="" if here else "fb-here")
                link.props("aria-current=page" if here else "", remove="" if here else "aria-current")

        router = context.client.sub_pages_router
        router.on_path_changed(mark)
        mark(router.current_path)
        self._show()
        ui.timer(REFRESH_S, self._show)
        with ui.element("div").classes("fb-main") as main:  # within the <main> that NiceGUI makes
            ui.skip_link("Skip to the page", target=main)
            ui.sub_pages({path: partial(page.build, self._visit) for path, page in self._pages.items()})
        await self._know_the_browser()

    def _show(self) -> None:
        observer = self._visit.observer
        self._alert.set_visibility(bool(observer.problem))
        self._problem.set_text(observer.problem)
        serving = "" if observer.problem else observer.listed.serving_version
        self._pill.set_text(f"serving {short_version(serving)}" if serving else "not serving")
        self._pill.classes(add="" if serving else "fb-bad", remove="fb-bad" if serving else "")

    async def _know_the_browser(self) -> None:
        proposal = f"{self._visit.rater_id}-{secrets.token_hex(4)}"
        await context.client.connected()
        try:
            kept = await ui.run_javascript(RATER % proposal, timeout=KNOWN_WITHIN_S)
        except TimeoutError:  # a browser without storage: a pseudonym for this visit
            kept = proposal
        self._visit.rater_id = kept if isinstance(kept, str) and 0 < len(kept) <= 64 else proposal


@contextmanager
def failures_shown(visit: Visit) -> Iterator[None]:
    """A call that fails inside becomes one line on the page."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        ui.notify(
            explain(error, visit.observer.address), type="negative", multi_line=True, close_button="Dismiss", timeout=0
        )


def heading(title: str, text: str) -> None:
    """A page's name, and in a sentence what it is for."""
    with ui.element("div").classes("fb-heading"):
        words("h1", title)
        words("p", text).classes("fb-quiet")


def words(tag: str, text: str = "") -> TextElement:
    """Text in the HTML element that says what it is."""
    return TextElement(tag=tag, text=text)
