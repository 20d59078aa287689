"""The versions there are, newest first, each with its parent, its figures and why it is in its state."""

from nicegui import ui

from console.policies_view import local_time, short_version, state_name
from console.web.layout import REFRESH_S, failures_shown, heading, words
from console.web.visit import Visit
from foldback.v1 import policy_pb2 as pb

RETURNABLE = (pb.POLICY_STATE_RETIRED, pb.POLICY_STATE_ROLLED_BACK)
FIRST = 20
NAMES = {
    "gate_win_rate": ("win rate", "{:.0%}"),
    "gate_reward": ("reward", "{:+.2f} σ"),
    "gate_active_reward": ("reward of the one before", "{:+.2f} σ"),
    "gate_kl_nats": ("from the reference", "{:.1f} nats"),
    "gate_length_ratio": ("length", "× {:.2f}"),
    "gate_distinct_2": ("distinct pairs of words", "{:.0%}"),
    "gate_entropy_nats": ("entropy", "{:.2f} nats"),
    "gate_win_rate_bound": ("win rate, lower bound", "{:.0%}"),
}
"""Figures that have a name for people, the most telling first."""


def versions_page(visit: Visit) -> None:
    VersionsPage(visit).build()


class VersionsPage:
    def __init__(self, visit: Visit) -> None:
        self._visit, self._observer = visit, visit.observer
        self._shown = b""
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
        now = listed.SerializeToString(deterministic=True)
        if now == self._shown:  # what has the keyboard's focus stays where it is
            return
        self._shown = now
        self._list.clear()
        with self._list:
            for policy in listed.policies[: self._count]:
                self._version(policy, serving=policy.version == listed.serving_version)
        self._more.set_visibility(len(listed.policies) > self._count)

    def _version(self, policy: pb.Policy, *, serving: bool) -> None:
        state = state_name(policy.state)
        with (
            words("li")
            .classes(f"fb-version fb-{state}{' fb-serving' if serving else ''}")
            .props(f"id={policy.version}")
        ):
            with ui.element("div").classes("fb-row"):
                words("h2", short_version(policy.version)).props(f"title={policy.version}")
                words("span", "serving" if serving else state.replace("_", " ")).classes("fb-state")
                words("span", f"from {short_version(policy.parent)}" if policy.parent else "the base model").classes(
                    "fb-quiet"
                )
                words("time", local_time(policy.create_time)).classes("fb-quiet fb-push")
            if policy.reason:
                words("p", policy.reason).classes("fb-reason")
            _figures(policy)
            if policy.state in RETURNABLE and not serving:
                ui.button("Promote", on_click=lambda: self._promote(policy.version)).props(
                    f'outline dense no-caps aria-label="Promote {short_version(policy.version)}"'
                )

    def _show_more(self) -> None:
        self._count += FIRST
        self._shown = b""
        self._show()

    async def _promote(self, version: str) -> None:
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


def _figures(policy: pb.Policy) -> None:
    """The named ones in a line, the others behind it."""
    named = [(*NAMES[name], policy.figures[name]) for name in NAMES if name in policy.figures]
    if not named:
        return
    with words("ul").classes("fb-figures"):
        for name, form, value in named[:4]:
            words("li", f"{name} {form.format(value)}")
    rest = sorted(set(policy.figures) - set(list(NAMES)[:4]))
    with words("details").classes("fb-quiet"):
        words("summary", "All figures")
        for name in rest:
            words("div", f"{NAMES.get(name, (name,))[0]}: {policy.figures[name]:.4g}")
        words("div", policy.version)


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
