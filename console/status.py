"""What an operator asks first: what is served, is it well, what has it learned."""

import math
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc

from console.client import Client
from console.endpoints import endpoints
from console.errors import explain
from console.policies_view import state_name, training_name
from console.scrape import Samples, by_label, scrape, total
from console.trial import trial_figures
from settings import Settings

FUNNEL = "foldback_feedback_funnel"
FIGURES = {
    "ppo_iterations": "foldback_ppo_iterations_total",
    "ppo_kl_nats": "foldback_ppo_kl_nats",
    "ppo_entropy_nats": "foldback_ppo_entropy_nats",
    "ppo_clip_ratio": "foldback_ppo_clip_ratio",
    "value_explained_variance": "foldback_value_explained_variance_ratio",
    "judgements_awaited": "foldback_judgements_awaited",
    "versions_published": "foldback_policy_versions_published_total",
}
APPLICATIONS = ("ChatService/", "FeedbackService/")
"""Whose calls are counted. The trainer's are left out: it asks for a new version's rollouts until the server has it,
which is no failure."""
OF_PPO = ("ppo_kl_nats", "ppo_entropy_nats", "ppo_clip_ratio", "value_explained_variance")


@dataclass(slots=True)
class Report:
    address: str
    healthy: bool = False
    problem: str = ""
    """Why the server could not be asked."""
    serving_version: str = ""
    canary_version: str = ""
    """On trial here with a share of the traffic; "" while none is."""
    training_state: str = ""
    versions: dict[str, int] = field(default_factory=dict)
    """How many policy versions are in which state."""
    trainer_url: str = ""
    trainer_answers: bool = False
    trainer: dict[str, float] = field(default_factory=dict)
    """Figures of the trainer by name; those it has not set yet are left out."""
    funnel: dict[str, int] = field(default_factory=dict)
    """Events in the preference store by stage."""
    requests: dict[str, int] = field(default_factory=dict)
    """Calls of applications to this server by status code."""


async def gather(settings: Settings) -> Report:
    """Ask the server and both metrics ports; what does not answer is said in the report, not raised."""
    place = endpoints(settings)
    report = Report(address=place.chat, trainer_url=place.trainer_metrics)
    async with Client.of(settings, attempts=1) as client:
        try:
            report.healthy = await client.health()
            listed = await client.list_policies()
        except grpc.aio.AioRpcError as error:
            report.problem = explain(error, place.chat)
        else:
            report.serving_version, report.canary_version = listed.serving_version, listed.canary_version
            report.training_state = training_name(listed.training_state)
            report.versions = dict(Counter(state_name(policy.state) for policy in listed.policies))
    if (served := await scrape(place.server_metrics)) is not None:
        report.requests = _counts(by_label(_of_applications(served), "foldback_grpc_requests_total", "code"))
    if (learned := await scrape(place.trainer_metrics)) is not None:
        report.trainer_answers = True
        report.trainer = trainer_figures(learned)
        report.funnel = _counts(by_label(learned, FUNNEL, "stage"))
    return report


def trainer_figures(samples: Samples) -> dict[str, float]:
    """The figures worth a line, finite ones only."""
    figures = {name: total(samples, metric) for name, metric in FIGURES.items()}
    if not figures["ppo_iterations"]:  # since this start: what PPO would tell stands at 0 and means nothing
        figures = {name: value for name, value in figures.items() if name not in OF_PPO}
    accuracy = by_label(samples, "foldback_reward_model_accuracy_ratio", "split")
    rewards = by_label(samples, "foldback_reward_mean", "slot")
    figures |= {f"reward_accuracy_{split}": value for split, value in accuracy.items()}
    figures |= {f"reward_mean_{slot}": value for slot, value in rewards.items()}
    if checkpoint := total(samples, "foldback_checkpoint_timestamp_seconds"):
        figures["checkpoint_age_s"] = time.time() - checkpoint
    figures |= trial_figures(samples)
    return {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}


def _of_applications(samples: Samples) -> Samples:
    return {key: value for key, value in samples.items() if dict(key[1]).get("method", "").startswith(APPLICATIONS)}


def _counts(values: dict[str, float]) -> dict[str, int]:
    return {name: int(value) for name, value in values.items()}
