"""The trainer's Prometheus metrics: base units, bounded labels."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from feedback.joiner import Joiner
from feedback.store import PreferenceStore
from trainer.gate import Report
from trainer.ppo.figures import PpoFigures
from trainer.reward.model import RewardFigures
from trainer.tokens import Rollout

_STEP_BUCKETS_S = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)

step_duration = Histogram(
    "foldback_train_step_duration_seconds",
    "Time of one pass of a phase of learning.",
    ["phase"],
    buckets=_STEP_BUCKETS_S,
)

ppo_kl = Gauge("foldback_ppo_kl_nats", "Mean KL of the policy to the reference, a response.")
ppo_clip_ratio = Gauge("foldback_ppo_clip_ratio", "Share of tokens whose probability ratio was clipped.")
ppo_entropy = Gauge("foldback_ppo_entropy_nats", "Mean entropy of the policy, a token.")
ppo_iterations = Counter("foldback_ppo_iterations_total", "PPO iterations of this process.")
ppo_budget = Gauge("foldback_ppo_budget_iterations", "PPO iterations that the judgements so far still allow.")
value_explained_variance = Gauge(
    "foldback_value_explained_variance_ratio", "Share of the returns' variance that the value head explains."
)
sample_staleness = Histogram(
    "foldback_sample_staleness_versions",
    "Versions between a rollout's policy and the one that the trainer continues from.",
    buckets=(0, 1, 2, 3, 5, 8),
)

reward_accuracy = Gauge(
    "foldback_reward_model_accuracy_ratio", "Share of pairs that the reward model orders as the rater did.", ["split"]
)
reward_calibration_error = Gauge(
    "foldback_reward_model_calibration_error_ratio",
    "Mean gap between the reward model's confidence and its accuracy.",
    ["split"],
)
reward_mean = Gauge(
    "foldback_reward_mean",
    "Mean conservative reward, in deviations of the reference's samples: of rollouts, and of the gate's two policies.",
    ["slot"],
)

gates = Counter("foldback_gate_decisions_total", "Candidates by what the gate said.", ["verdict"])
versions_published = Counter("foldback_policy_versions_published_total", "Versions that the trainer made active.")
checkpoint_timestamp = Gauge("foldback_checkpoint_timestamp_seconds", "Unix time of the newest checkpoint.")
training_paused = Gauge("foldback_training_paused", "1 while an operator has paused training.")


@contextmanager
def timed(phase: str) -> Iterator[None]:
    """Observe how long a phase took, if it ended well."""
    start = time.monotonic()
    yield
    step_duration.labels(phase).observe(time.monotonic() - start)


def show_reward_model(figures: RewardFigures) -> None:
    reward_accuracy.labels("held_out").set(figures.accuracy)
    reward_calibration_error.labels("held_out").set(figures.calibration_error)


def show_ppo(figures: PpoFigures) -> None:
    ppo_kl.set(figures.kl)
    ppo_clip_ratio.set(figures.clip_fraction)
    ppo_entropy.set(figures.entropy)
    value_explained_variance.set(figures.explained_variance)
    reward_mean.labels("rollouts").set(figures.score)
    ppo_iterations.inc()


def show_staleness(rollouts: Sequence[Rollout], history: Sequence[str]) -> None:
    """How many promotions lie between the oldest token of each rollout and now. `history`: versions as they served."""
    last_active = {version: index for index, version in enumerate(history)}
    for rollout in rollouts:
        oldest = min(last_active.get(version, -1) for version in rollout.policy_version)
        sample_staleness.observe(len(history) - 1 - oldest)


def show_gate(report: Report) -> None:
    reward_mean.labels("candidate").set(report.reward)
    reward_mean.labels("active").set(report.active_reward)
    gates.labels(report.verdict.name.lower()).inc()


class JoinerCollector(Collector):
    """The joiner's own counts, read when Prometheus asks."""

    def __init__(self, joiner: Joiner) -> None:
        self._joiner = joiner

    def collect(self) -> Iterator[Metric]:
        state = self._joiner.state
        consumed = CounterMetricFamily("foldback_events_consumed", "Events that were joined.", labels=["topic"])
        lag = GaugeMetricFamily("foldback_consumer_lag_records", "Events not read yet.", labels=["topic"])
        lag_seconds = GaugeMetricFamily(
            "foldback_consumer_lag_seconds", "Age of the newest event read, where more wait.", labels=["topic"]
        )
        for topic, count in list(state.consumed.items()):
            consumed.add_metric([topic], count)
        for topic, records in list(state.lag_records.items()):
            lag.add_metric([topic], records)
        for topic, seconds in list(state.lag_seconds.items()):
            lag_seconds.add_metric([topic], seconds)
        yield consumed
        yield lag
        yield lag_seconds
        yield GaugeMetricFamily(
            "foldback_broker_connected", "1 while brokers answer the joiner.", value=float(state.connected)
        )


class FunnelCollector(Collector):
    """The preference store's counts at the moment of asking: a turn of the loop may last minutes."""

    def __init__(self, store: PreferenceStore) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        funnel = GaugeMetricFamily(
            "foldback_feedback_funnel", "Events of the preference store by stage.", labels=["stage"]
        )
        for stage, count in self._store.funnel().items():
            funnel.add_metric([stage], count)
        yield funnel
