"""The trainer's Prometheus metrics: base units, bounded labels."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

from settings.trainer import TrainerSettings
from trainer.canary import Report as CanaryReport
from trainer.canary import Verdict as CanaryVerdict
from trainer.gate_report import Report, Verdict
from trainer.ppo.figures import PpoFigures
from trainer.reward.model import RewardFigures
from trainer.tokens import IN_TRAINING, Rollout

_STEP_BUCKETS_S = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)

step_duration = Histogram(
    "foldback_train_step_duration_seconds",
    "Time of one pass of a phase of learning.",
    ["phase"],
    buckets=_STEP_BUCKETS_S,
)

ppo_kl = Gauge("foldback_ppo_kl_nats", "Mean KL of the policy to the reference, a response.")
ppo_kl_bound = Gauge("foldback_ppo_kl_bound_nats", "Where training goes back to the active version: ppo.max_kl_nats.")
ppo_kl_coefficient = Gauge("foldback_ppo_kl_coefficient", "What a nat of KL costs in reward: the controller moves it.")
ppo_step_kl = Gauge("foldback_ppo_step_kl_nats", "KL that the last update put between the policy and itself, a token.")
ppo_clip_ratio = Gauge("foldback_ppo_clip_ratio", "Share of tokens whose probability ratio was clipped.")
ppo_entropy = Gauge("foldback_ppo_entropy_nats", "Mean entropy of the policy, a token.")
ppo_entropy_bound = Gauge(
    "foldback_ppo_entropy_bound_nats", "Below it the gate takes a policy for collapsed: gate.min_entropy_nats."
)
ppo_tokens = Gauge("foldback_ppo_response_tokens", "Mean length of the rollouts' answers, in tokens.")
ppo_stopped = Gauge("foldback_ppo_stopped_ratio", "Share of the rollouts' answers that ended by themselves.")
ppo_policy_loss = Gauge("foldback_ppo_policy_loss", "Clipped surrogate loss, mean over tokens.")
ppo_gradient = Gauge("foldback_ppo_gradient_norm", "Euclidean norm of the adapters' gradient before it is cut.")
ppo_stale = Gauge("foldback_ppo_stale_ratio", "Share of the rollouts' tokens that an older version drew.")
ppo_importance = Gauge(
    "foldback_ppo_importance_weight", "Mean weight that corrects for older versions; 1: all are current."
)
ppo_sampler_gap = Gauge(
    "foldback_ppo_sampler_gap_nats",
    "Mean distance of the engine's logprobs from the trainer's: rounding, or a fault.",
)
ppo_demonstration = Gauge(
    "foldback_ppo_demonstration_loss_nats", "Mean negative log likelihood of users' own edits, a token."
)
ppo_favourite = Gauge(
    "foldback_ppo_favourite_loss_nats",
    "Mean negative log likelihood of the served answers that users liked best, a token.",
)
rule_score = Gauge(
    "foldback_rule_score", "Mean score of the rollouts' answers by rule of rules.yaml: 1 kept, 0 broken.", ["rule"]
)
ppo_dropped = Counter("foldback_ppo_dropped_rollouts_total", "Rollouts left out because they were too stale.")
ppo_iterations = Counter("foldback_ppo_iterations_total", "PPO iterations of this process.")
ppo_budget = Gauge("foldback_ppo_budget_iterations", "PPO iterations that the judgements so far still allow.")
value_loss = Gauge("foldback_value_loss", "Clipped squared error of the value head, mean over tokens.")
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
reward_source_accuracy = Gauge(
    "foldback_reward_model_source_accuracy_ratio",
    "Share of held-out pairs ordered right, by who judged and how; for thumbs and ratings, liked over disliked.",
    ["source", "kind"],
)
reward_calibration_error = Gauge(
    "foldback_reward_model_calibration_error_ratio",
    "Mean gap between the reward model's confidence and its accuracy.",
    ["split"],
)
reward_loss = Gauge("foldback_reward_model_loss_nats", "Mean negative log likelihood of a judgement.", ["split"])
reward_length_rule = Gauge(
    "foldback_reward_model_length_rule_ratio", "Share of the same pairs that 'the longer wins' orders right.", ["split"]
)
reward_judgements = Gauge(
    "foldback_reward_model_judgements", "Judgements learned from, and held out to measure by.", ["split"]
)
reward_ready = Gauge("foldback_reward_model_ready", "1 while the reward model is good enough to steer the policy.")
taste_changes = Counter(
    "foldback_taste_changes_total", "Times that people were noticed to like something else, which decides since."
)
judgements_awaited = Gauge(
    "foldback_judgements_awaited", "Judgements that PPO waits for before it goes on; 0 while it has enough."
)
reward_mean = Gauge(
    "foldback_reward_mean",
    "Mean conservative reward, in deviations of the reference's samples: of rollouts, and of the gate's two policies.",
    ["slot"],
)

gates = Counter("foldback_gate_decisions_total", "Candidates by what the gate said.", ["verdict"])
gate_failures = Counter("foldback_gate_failed_checks_total", "Checks of the gate that candidates failed.", ["check"])
gate_win_rate = Gauge(
    "foldback_gate_win_rate_ratio", "Share of held-out prompts that the last candidate answered better than the active."
)
gate_length = Gauge("foldback_gate_length_ratio", "Mean length of the last candidate's answers over the active's.")
gate_distinct = Gauge(
    "foldback_gate_distinct_bigrams_ratio", "Distinct bigrams of the last candidate's answers: less is repetition."
)
gate_distinct_bound = Gauge(
    "foldback_gate_distinct_bigrams_bound_ratio", "Below it the gate says no: gate.min_distinct_2."
)
gate_reference_length = Gauge(
    "foldback_gate_reference_length_ratio", "Mean length of the last candidate's answers over the base model's."
)
gate_phrase_growth = Gauge(
    "foldback_gate_phrase_growth_ratio",
    "How much further a phrase has spread in its answers than in the base model's.",
)
gate_perplexity = Gauge(
    "foldback_gate_base_perplexity_ratio",
    "Perplexity of the base model's answers under the last candidate, over its own.",
)
canary_on_trial = Gauge("foldback_canary_on_trial", "1 while a version is on trial.")
canary_ratings = Gauge("foldback_canary_ratings", "Ratings that the trial, or the watch after it, rests on.", ["arm"])
canary_rating_mean = Gauge(
    "foldback_canary_rating_mean_ratio", "Mean rating from 0 to 1 of these, each rater counted once.", ["arm"]
)
canary_evidence = Gauge(
    "foldback_canary_evidence",
    "Wealth of a bet that the version is as good (for) or worse (against): it decides at 1 / error rate.",
    ["direction"],
)
canary_decisions = Counter("foldback_canary_decisions_total", "Versions on trial, or watched, by result.", ["result"])
# From 0: a first decision is an increase, and a panel is not empty before the first trial.
for _arm in ("canary", "control"):
    canary_ratings.labels(_arm)
    canary_rating_mean.labels(_arm)
for _direction in ("for", "against"):
    canary_evidence.labels(_direction)
for _result in (*(verdict for verdict in CanaryVerdict if verdict is not CanaryVerdict.WAIT), "taken_down"):
    canary_decisions.labels(_result)
for _verdict in Verdict:
    gates.labels(_verdict.name.lower())
versions_published = Counter("foldback_policy_versions_published_total", "Versions that the trainer made active.")
checkpoint_timestamp = Gauge("foldback_checkpoint_timestamp_seconds", "Unix time of the newest checkpoint.")
training_paused = Gauge("foldback_training_paused", "1 while an operator has paused training.")


def show_bounds(settings: TrainerSettings) -> None:
    """What is allowed, for alerts to compare with."""
    ppo_kl_bound.set(settings.ppo.max_kl_nats)
    ppo_entropy_bound.set(settings.gate.min_entropy_nats)
    gate_distinct_bound.set(settings.gate.min_distinct_2)


@contextmanager
def timed(phase: str) -> Iterator[None]:
    """Observe how long a phase took, if it ended well."""
    start = time.monotonic()
    yield
    step_duration.labels(phase).observe(time.monotonic() - start)


def show_reward_model(figures: RewardFigures) -> None:
    reward_accuracy.labels("held_out").set(figures.accuracy)
    for name, accuracy in figures.accuracy_by_source.items():
        reward_source_accuracy.labels(*name.split("/")).set(accuracy)
    reward_calibration_error.labels("held_out").set(figures.calibration_error)
    reward_loss.labels("held_out").set(figures.heldout_loss)
    reward_length_rule.labels("held_out").set(figures.longer_wins)
    reward_judgements.labels("train").set(figures.judgements)
    reward_judgements.labels("held_out").set(figures.heldout_judgements)
    reward_ready.set(figures.ready)
    taste_changes.inc(figures.changed > 0)


def show_rules(means: Mapping[str, float]) -> None:
    """Mean score by rule; their names are an operator's, and few."""
    for name, mean in means.items():
        rule_score.labels(name).set(mean)


def show_ppo(figures: PpoFigures) -> None:
    ppo_kl.set(figures.kl)
    ppo_kl_coefficient.set(figures.kl_coefficient)
    ppo_step_kl.set(figures.approximate_kl)
    ppo_clip_ratio.set(figures.clip_fraction)
    ppo_entropy.set(figures.entropy)
    ppo_tokens.set(figures.length)
    ppo_stopped.set(figures.stopped)
    ppo_policy_loss.set(figures.policy_loss)
    ppo_gradient.set(figures.grad_norm)
    ppo_stale.set(figures.stale)
    ppo_importance.set(figures.importance_mean)
    ppo_sampler_gap.set(figures.sampler_gap)
    ppo_dropped.inc(figures.dropped)
    value_loss.set(figures.value_loss)
    value_explained_variance.set(figures.explained_variance)
    reward_mean.labels("rollouts").set(figures.score)
    if figures.demonstration_nll is not None:
        ppo_demonstration.set(figures.demonstration_nll)
    if figures.favourite_nll is not None:
        ppo_favourite.set(figures.favourite_nll)
    ppo_iterations.inc()


def show_staleness(rollouts: Sequence[Rollout], history: Sequence[str]) -> None:
    """How many promotions lie between the oldest token of each rollout and now. `history`: versions as they served."""
    last_active = {version: index for index, version in enumerate(history)} | {IN_TRAINING: len(history) - 1}
    for rollout in rollouts:
        oldest = min(last_active.get(version, -1) for version in rollout.policy_version)
        sample_staleness.observe(len(history) - 1 - oldest)


_GATE_FIGURES = {
    "length_ratio": gate_length,
    "distinct_2": gate_distinct,
    "reference_length_ratio": gate_reference_length,
    "phrase_growth": gate_phrase_growth,
    "base_perplexity": gate_perplexity,
}
"""By the check that tells it."""


def show_gate(report: Report, verdict: Verdict) -> None:
    reward_mean.labels("candidate").set(report.reward)
    reward_mean.labels("active").set(report.active_reward)
    gates.labels(verdict.name.lower()).inc()
    gate_win_rate.set(report.win_rate)
    for check in report.checks:
        if check.verdict is Verdict.FAILED:
            gate_failures.labels(check.name).inc()
        if gauge := _GATE_FIGURES.get(check.name):
            gauge.set(check.figure)


def show_canary(report: CanaryReport, *, on_trial: bool) -> None:
    canary_on_trial.set(on_trial)
    canary_ratings.labels("canary").set(report.ratings)
    canary_ratings.labels("control").set(report.control_ratings)
    canary_rating_mean.labels("canary").set(report.mean)
    canary_rating_mean.labels("control").set(report.control_mean)
    canary_evidence.labels("for").set(report.evidence_for)
    canary_evidence.labels("against").set(report.evidence_against)
