"""What the Grafana dashboard shows, row by row (notes/serving.md §3)."""

from collections.abc import Mapping
from dataclasses import dataclass

RATE = "$__rate_interval"
SERVER_FAULTS = 'code=~"INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS"'
"""As in rules/serving.yaml: other failures are the callers'."""

SWAPS = (
    'max by (version) (foldback_policy_info{slot="active"})'
    ' unless max by (version) (foldback_policy_info{slot="active"} offset 1m)'
)
"""A version that serves and did not a minute ago."""


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    meaning: str
    unit: str
    """A unit of Grafana's."""
    queries: Mapping[str, str]
    """Expressions of PromQL by legend."""
    kind: str = "timeseries"
    width: int = 8
    maximum: float | None = None


def quantiles(metric: str, *shares: float, by: str = "") -> dict[str, str]:
    """Quantiles of a histogram, over all replicas."""
    labels, legend = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    return {
        f"{legend}p{share * 100:g}": (f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[{RATE}])))")
        for share in shares
    }


def rates(metric: str, by: str) -> dict[str, str]:
    """Events a second by one label."""
    return {f"{{{{{by}}}}}": f"sum by ({by}) (rate({metric}[{RATE}]))"}


def by(metric: str, label: str) -> dict[str, str]:
    return {f"{{{{{label}}}}}": f"max by ({label}) ({metric})"}


def none_is_zero(expression: str) -> str:
    """For counters that have no series until the first bad thing happens."""
    return f"{expression} or vector(0)"


ROWS: Mapping[str, tuple[Panel, ...]] = {
    "Objective": (
        Panel(
            "Calls that did not fail, last hour",
            "The objective is 99.9 % in 30 days. Failures are the server's own; a caller's mistakes do not count.",
            "percentunit",
            {
                "": "1 - ("
                + none_is_zero(f"sum(rate(foldback_grpc_requests_total{{{SERVER_FAULTS}}}[1h]))")
                + ") / sum(rate(foldback_grpc_requests_total[1h]))"
            },
            kind="stat",
            width=6,
        ),
        Panel("Calls by method", "Ended calls.", "reqps", rates("foldback_grpc_requests_total", "method"), width=9),
        Panel("Calls by status", "Ended calls.", "reqps", rates("foldback_grpc_requests_total", "code"), width=9),
    ),
    "Latency": (
        Panel(
            "Time to first token",
            "From the call's start, waiting included.",
            "s",
            quantiles("foldback_time_to_first_token_seconds", 0.5, 0.95, 0.99),
        ),
        Panel(
            "Time per output token",
            "Mean of a candidate after its first token.",
            "s",
            quantiles("foldback_time_per_output_token_seconds", 0.5, 0.95, 0.99),
        ),
        Panel(
            "Call duration, 95th percentile",
            "From the call's start to its status, by method.",
            "s",
            quantiles("foldback_grpc_request_duration_seconds", 0.95, by="method"),
        ),
    ),
    "Engine": (
        Panel(
            "Chats in flight",
            "Accepted and not yet ended, and those among them that wait for the engine.",
            "short",
            {"in flight": "sum(foldback_requests_in_flight)", "waiting": "sum(foldback_requests_queued)"},
        ),
        Panel(
            "Chats that ended early",
            "By reason: cancelled by the caller, past its deadline, failed.",
            "reqps",
            {"{{reason}}": none_is_zero(f"sum by (reason) (rate(foldback_requests_aborted_total[{RATE}]))")},
        ),
        Panel("Paused", "1 while an engine takes new weights.", "bool", {"paused": "max(foldback_engine_paused)"}),
        Panel(
            "vLLM: sequences",
            "Running, and waiting for room. Empty with the transformers engine.",
            "short",
            {"running": "sum(vllm:num_requests_running)", "waiting": "sum(vllm:num_requests_waiting)"},
        ),
        Panel(
            "vLLM: KV cache in use",
            "Near 1, requests wait or are preempted. Empty with the transformers engine.",
            "percentunit",
            {"used": "max(vllm:kv_cache_usage_perc)"},
            maximum=1,
        ),
        Panel(
            "vLLM: tokens",
            "Empty with the transformers engine.",
            "short",
            {
                "prompt": f"sum(rate(vllm:prompt_tokens_total[{RATE}]))",
                "generated": f"sum(rate(vllm:generation_tokens_total[{RATE}]))",
            },
        ),
    ),
    "Feedback": (
        Panel(
            "Funnel",
            "Served → rated → joined → learned, and what left on the way. Counts of the preference store.",
            "short",
            by("foldback_feedback_funnel", "stage"),
            kind="bargauge",
        ),
        Panel(
            "Feedback submitted",
            "By kind and result.",
            "reqps",
            {"{{kind}} {{result}}": (f"sum by (kind, result) (rate(foldback_feedback_received_total[{RATE}]))")},
        ),
        Panel(
            "Feedback delay",
            "From serving an answer to feedback on it.",
            "s",
            quantiles("foldback_feedback_delay_seconds", 0.5, 0.95),
        ),
    ),
    "Learning": (
        Panel(
            "Reward",
            "Mean conservative reward, in deviations of the reference's answers.",
            "short",
            by("foldback_reward_mean", "slot"),
        ),
        Panel("KL to the reference", "A response, in nats.", "short", {"KL": "max(foldback_ppo_kl_nats)"}),
        Panel(
            "Reward model on held-out pairs",
            "How often it orders as the rater did; how far its confidence is off.",
            "percentunit",
            {
                "right": 'max(foldback_reward_model_accuracy_ratio{split="held_out"})',
                "calibration error": 'max(foldback_reward_model_calibration_error_ratio{split="held_out"})',
            },
            maximum=1,
        ),
        Panel(
            "Policy's entropy",
            "A token, in nats. A collapse means that answers become one answer.",
            "short",
            {"entropy": "max(foldback_ppo_entropy_nats)"},
        ),
        Panel(
            "PPO: clipped and explained",
            "Share of tokens clipped; share of the returns' variance that the value head explains.",
            "percentunit",
            {
                "clipped": "max(foldback_ppo_clip_ratio)",
                "explained": "max(foldback_value_explained_variance_ratio)",
            },
        ),
        Panel(
            "Time of a step",
            "Mean by phase.",
            "s",
            {
                "{{phase}}": f"sum by (phase) (rate(foldback_train_step_duration_seconds_sum[{RATE}]))"
                f" / sum by (phase) (rate(foldback_train_step_duration_seconds_count[{RATE}]) > 0)"
            },
        ),
        Panel(
            "Gate",
            "Candidates by verdict, last hour.",
            "short",
            {"{{verdict}}": "sum by (verdict) (increase(foldback_gate_decisions_total[1h]))"},
        ),
        Panel(
            "Staleness of rollouts",
            "Versions between a rollout's policy and the one that is trained.",
            "short",
            quantiles("foldback_sample_staleness_versions", 0.5, 0.95),
        ),
        Panel(
            "Work left",
            "PPO iterations that the judgements so far still allow. 0: it waits for feedback.",
            "short",
            {"iterations": "max(foldback_ppo_budget_iterations)", "paused": "max(foldback_training_paused)"},
        ),
    ),
    "Policies": (
        Panel(
            "Serving",
            "Replicas by the version that they serve.",
            "short",
            {"{{version}}": 'count by (version) (foldback_policy_info{slot="active"})'},
        ),
        Panel(
            "Swaps",
            "By result, last hour: anything but served wants a look.",
            "short",
            {"{{result}}": "sum by (result) (increase(foldback_weight_swaps_total[1h]))"},
        ),
        Panel(
            "Duration of a swap",
            "From its start to the canary check's end.",
            "s",
            quantiles("foldback_weight_swap_duration_seconds", 0.5, 0.95),
        ),
        Panel("Age of the version", "Since it was published.", "s", {"age": "max(foldback_policy_age_seconds)"}),
        Panel(
            "Replicas behind",
            "Promotions that a replica has not followed.",
            "short",
            {"{{instance}}": "foldback_policy_skew_versions"},
        ),
        Panel(
            "Newest checkpoint's age",
            "How much work a crash of the trainer would cost.",
            "s",
            {"age": "time() - max(foldback_checkpoint_timestamp_seconds)"},
        ),
    ),
    "Kafka and spool": (
        Panel("Brokers answer", "1 while they do.", "bool", {"{{job}} {{instance}}": "foldback_broker_connected"}),
        Panel(
            "Events made durable",
            "By topic and where: the brokers, or this server's disk.",
            "short",
            {"{{topic}} {{result}}": f"sum by (topic, result) (rate(foldback_events_produced_total[{RATE}]))"},
        ),
        Panel(
            "Acknowledgement, 99th percentile",
            "From sending an event.",
            "s",
            quantiles("foldback_event_ack_duration_seconds", 0.99, by="topic"),
        ),
        Panel(
            "Spool",
            "Events that wait for the brokers, and for how long.",
            "short",
            {"events": "sum(foldback_spool_events)", "oldest, s": "max(foldback_spool_oldest_age_seconds)"},
        ),
        Panel(
            "Joiner behind",
            "Events that the trainer has not read.",
            "short",
            by("foldback_consumer_lag_records", "topic"),
        ),
        Panel(
            "Events lost",
            "Must stay 0.",
            "short",
            {"{{reason}}": none_is_zero("sum by (reason) (foldback_events_lost_total)")},
        ),
    ),
    "Dead letters": (
        Panel(
            "Events that could not be used",
            "All of them, and the feedback among them. 'foldback dlq ls' says why.",
            "short",
            {
                "all": 'max(foldback_feedback_funnel{stage="dead_lettered"})',
                "feedback": 'max(foldback_feedback_funnel{stage="dead_feedback"})',
            },
            width=12,
        ),
        Panel(
            "Share of feedback",
            "Over 1 % in 15 minutes there is an alert.",
            "percentunit",
            {
                "": 'max(foldback_feedback_funnel{stage="dead_feedback"})'
                ' / clamp_min(max(foldback_feedback_funnel{stage="accepted"}), 1)'
            },
            kind="stat",
            width=12,
        ),
    ),
}
