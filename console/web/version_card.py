"""One version on the page: where it stands, why, and what the gate found."""

from collections.abc import Callable

from nicegui import ui

from console.names import short_version
from console.policies_view import local_time, state_name
from console.verdict import FIGURES, reasons, told
from console.web.layout import words
from foldback.v1 import policy_pb2 as pb

RETURNABLE = (pb.POLICY_STATE_RETIRED, pb.POLICY_STATE_ROLLED_BACK)
REFUSED = (pb.POLICY_STATE_REJECTED, pb.POLICY_STATE_ROLLED_BACK)
TELLING = 4
"""Figures shown without a click."""


class VersionCard:
    """Stays in its place while others change: what has the focus, or is just being clicked, stays."""

    def __init__(self, promote: Callable[[pb.Policy], object]) -> None:
        self._promote = promote
        self._shown = b""
        self.element = words("li").classes("fb-version")

    def show(self, policy: pb.Policy, *, serving: bool, trial: str = "") -> None:
        """`trial`: what users have said of it so far, where it is on trial."""
        now = policy.SerializeToString(deterministic=True) + bytes([serving]) + trial.encode()
        if now == self._shown:
            return
        self._shown = now
        state = state_name(policy.state)
        classes = f"fb-version fb-{state}{' fb-serving' if serving else ''}"
        self.element.classes(replace=classes).props(f"id={policy.version}")
        self.element.clear()
        with self.element:
            on_trial = policy.state == pb.POLICY_STATE_CANARY
            self._draw(policy, "serving" if serving and not on_trial else state.replace("_", " "))
            if trial:
                words("p", trial).classes("fb-quiet")
            if policy.state in RETURNABLE and not serving:
                ui.button("Promote", on_click=lambda: self._promote(policy)).props(
                    f'outline dense no-caps aria-label="Promote {short_version(policy.version)}"'
                )

    def _draw(self, policy: pb.Policy, state: str) -> None:
        with ui.element("div").classes("fb-row"):
            words("h2", short_version(policy.version)).props(f"title={policy.version}")
            words("span", state).classes("fb-state")
            words("span", f"from {short_version(policy.parent)}" if policy.parent else "the base model").classes(
                "fb-quiet"
            )
            words("time", local_time(policy.create_time)).classes("fb-quiet fb-push")
        _why(policy)
        if policy.figures:
            with words("ul").classes("fb-figures"):
                for figure in told(policy.figures, TELLING):
                    words("li", figure)
            with words("details").classes("fb-quiet"):
                words("summary", "All figures")
                for name, value in sorted(policy.figures.items()):
                    words("div", f"{FIGURES.get(name, (name,))[0]}: {value:.4g}")
                words("div", policy.version)


def _why(policy: pb.Policy) -> None:
    said = reasons(policy.reason)
    if not said:
        return
    if policy.state == pb.POLICY_STATE_CANARY:
        said = [f"tried on a share of the traffic: {', '.join(said)}"]
    if policy.state not in REFUSED:
        words("p", "; ".join(said)).classes("fb-reason")
        return
    with ui.element("div").classes("fb-why"):
        words("p", "Refused" if policy.state == pb.POLICY_STATE_REJECTED else "Taken back").classes("fb-why-title")
        with words("ul"):
            for reason in said:
                words("li", reason)
