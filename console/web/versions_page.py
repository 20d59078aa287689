"""The versions there are, newest first, each with its parent, its figures and why it is in its state."""

from nicegui import ui

from console.names import short_version
from console.trial import trial
from console.web.layout import REFRESH_S, failures_shown, heading, words
from console.web.version_card import VersionCard
from console.web.visit import Visit
from foldback.v1 import policy_pb2 as pb

FIRST = 20


def versions_page(visit: Visit) -> None:
    VersionsPage(visit).build()


class VersionsPage:
    def __init__(self, visit: Visit) -> None:
        self._visit, self._observer = visit, visit.observer
        self._cards: dict[str, VersionCard] = {}
        self._count = FIRST

    def build(self) -> None:
        heading("Versions", "Every version that was trained, what the gate found, and which one answers now.")
        with ui.element("div").classes("fb-row"):
            ui.button("Roll back", icon="undo", on_click=self._roll_back).props("unelevated no-caps color=negative")
            self._training = ui.button(on_click=self._toggle_training).props("outline no-caps")
        self._list = words("ol").classes("fb-versions")
        self._more = ui.button("Show more", on_click=self._show_more).props("flat no-caps")
        self._show()
        ui.timer(REFRESH_S, self._show)

    def _show(self) -> None:
        listed = self._observer.listed
        running = listed.training_state != pb.TRAINING_STATE_PAUSED
        self._training.set_text("Pause training" if running else "Resume training")
        self._training.props(f"icon={'pause' if running else 'play_arrow'}")
        shown = list(listed.policies[: self._count])
        for gone in set(self._cards) - {policy.version for policy in shown}:
            self._cards.pop(gone).element.delete()
        for place, policy in enumerate(shown):
            if policy.version not in self._cards:
                with self._list:
                    card = self._cards[policy.version] = VersionCard(self._promote)
                card.element.move(target_index=place)
            said = trial(self._observer.figures) if policy.state == pb.POLICY_STATE_CANARY else ""
            self._cards[policy.version].show(policy, serving=policy.version == listed.serving_version, trial=said)
        self._more.set_visibility(len(listed.policies) > self._count)

    def _show_more(self) -> None:
        self._count += FIRST
        self._show()

    async def _promote(self, policy: pb.Policy) -> None:
        version = policy.version
        reason = await confirmed(
            f"Make {short_version(version)} answer?", "It takes over at once. Training goes on from it.", "Promote"
        )
        if reason is not None:
            with failures_shown(self._visit):
                await self._observer.client.promote(version, reason)
                ui.notify(f"{short_version(version)} is serving", type="positive")
            await self._see()

    async def _roll_back(self) -> None:
        reason = await confirmed(
            "Roll back?",
            "The last good version before the active one answers again, and the active one is marked.",
            "Roll back",
        )
        if reason is not None:
            with failures_shown(self._visit):
                policy = await self._observer.client.rollback("", reason)
                ui.notify(f"{short_version(policy.version)} is serving again", type="positive")
            await self._see()

    async def _toggle_training(self) -> None:
        paused = self._observer.listed.training_state == pb.TRAINING_STATE_PAUSED
        wanted = pb.TRAINING_STATE_RUNNING if paused else pb.TRAINING_STATE_PAUSED
        with failures_shown(self._visit):
            await self._observer.client.set_training_state(wanted, "by the web page")
        await self._see()

    async def _see(self) -> None:
        await self._observer.refresh()
        self._show()


async def confirmed(title: str, text: str, action: str) -> str | None:
    """The reason an operator gives, or None if nothing is to be done."""
    with ui.dialog() as dialog, ui.card().classes("fb-dialog"):
        words("h2", title)
        words("p", text).classes("fb-quiet")
        reason = ui.input("Why (others will read it)").props("outlined autofocus").classes("fb-wide")
        reason.on("keydown.enter", lambda: dialog.submit(reason.value or "from the web page"))
        with ui.element("div").classes("fb-row fb-end"):
            ui.button("Cancel", on_click=lambda: dialog.submit(None)).props("flat no-caps")
            ui.button(action, on_click=lambda: dialog.submit(reason.value or "from the web page")).props(
                "unelevated no-caps"
            )
    try:
        given: str | None = await dialog
    finally:
        dialog.delete()
    return given
