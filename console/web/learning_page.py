"""What has been learned so far, live."""

import json

from nicegui import ui

from console.names import short_version
from console.policies_view import training_name
from console.status_view import waiting
from console.web.layout import REFRESH_S, heading, words
from console.web.observer import Observer, versions_with
from console.web.timeline import HEIGHT, timeline
from console.web.visit import Visit
from foldback.v1 import policy_pb2

NONE = "–"


def learning_page(visit: Visit) -> None:
    LearningPage(visit.observer).build()


class LearningPage:
    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._shown = ""

    def build(self) -> None:
        heading("How it learns", "Every dashed line is a version that took over while nobody waited.")
        with ui.element("dl").classes("fb-tiles"):
            self._tiles = {name: _tile(name) for name in tiles(self._observer)}
        with ui.element("figure").classes("fb-figure"):
            self._chart = ui.echart({}).style(f"height: {HEIGHT}px").props("role=img aria-labelledby=caption")
            self._caption = words("figcaption").props("id=caption").classes("fb-quiet")
        self._show()
        ui.timer(REFRESH_S, self._show)

    def _show(self) -> None:
        observer = self._observer
        for name, value in tiles(observer).items():
            self._tiles[name].set_text(value)
        self._caption.set_text(caption(observer))
        options = timeline(observer.history, observer.listed.policies, observer.activations())
        text = json.dumps(options)
        if text != self._shown:  # an unchanged chart is not drawn again
            self._shown = text
            self._chart.options.clear()
            self._chart.options.update(options)
            self._chart.update()


def _tile(name: str) -> ui.label:
    with ui.element("div").classes("fb-tile"):
        words("dt", name)
        with ui.element("dd"):
            return ui.label(NONE)


def tiles(observer: Observer) -> dict[str, str]:
    """The figures worth a glance, for people."""
    figures, listed = observer.figures, observer.listed
    judged = versions_with(listed.policies, "gate_win_rate")

    def shown(name: str, form: str) -> str:
        return form.format(figures[name]) if name in figures else NONE

    return {
        "Serving": short_version(listed.serving_version) if listed.serving_version else NONE,
        "Training": training(observer),
        "Feedback learned": f"{observer.funnel['learned']}" if "learned" in observer.funnel else NONE,
        "PPO iterations": shown("ppo_iterations", "{:.0f}"),
        "Reward": shown("reward_mean_rollouts", "{:+.2f} σ"),
        "Last win rate": f"{judged[-1].figures['gate_win_rate']:.0%}" if judged else NONE,
        "From the reference": shown("ppo_kl_nats", "{:.1f} nats") if "ppo_kl_nats" in figures else served_kl(listed),
        "Reward model right": shown("reward_accuracy_held_out", "{:.0%}"),
    }


def training(observer: Observer) -> str:
    """Whether it trains, or what it needs to."""
    if not observer.figures:
        return "no trainer answers"
    state = training_name(observer.listed.training_state)
    return waiting(state, observer.figures) or state


def served_kl(listed: policy_pb2.ListPoliciesResponse) -> str:
    """Until the trainer has a figure of its own, what the gate found of the version that answers."""
    kl = [policy.figures["gate_kl_nats"] for policy in listed.policies
          if policy.version == listed.serving_version and "gate_kl_nats" in policy.figures]  # fmt: skip
    return f"{kl[0]:.1f} nats" if kl else NONE


def caption(observer: Observer) -> str:
    """The chart in a sentence, for those who do not see it."""
    swaps = len(observer.activations()) - 1
    if swaps < 1:
        return (
            "No version has been swapped in yet. Rate some answers: the trainer starts by itself when there are enough."
        )
    judged = versions_with(observer.listed.policies, "gate_reward")
    reward = f"; the newest version's reward is {judged[-1].figures['gate_reward']:+.2f} σ" if judged else ""
    return f"{swaps} swap{'s' if swaps > 1 else ''} so far{reward}. Red points were refused by the gate."
