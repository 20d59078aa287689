"""The dashboard's rows on serving and on events."""

from collections.abc import Mapping

from scripts.dashboard_panel import RATE, Panel, by, none_is_zero, quantiles, rates

USERS = 'method=~"(Chat|Feedback)Service/.+"'
SERVER_FAULTS = f'{USERS}, code=~"INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS"'
"""As in rules/serving.yaml: other failures are the callers'."""

SERVING: Mapping[str, tuple[Panel, ...]] = {
    "Objective": (
        Panel(
            "Users' calls that did not fail, last hour",
            "Chat and feedback; the objective is 99.9 % in 30 days. A caller's own mistakes do not count as failures.",
            "percentunit",
            {
                "": "1 - ("
                + none_is_zero(f"sum(rate(foldback_grpc_requests_total{{{SERVER_FAULTS}}}[1h]))")
                + f") / sum(rate(foldback_grpc_requests_total{{{USERS}}}[1h]))"
            },
            kind="stat",
            width=6,
        ),
        Panel(
            "Error budget, how fast it burns",
            "1 uses it up in 30 days. Pages go out at 14.4 over an hour and at 6 over six hours.",
            "short",
            {
                f"{window}": "("
                + none_is_zero(f"sum(rate(foldback_grpc_requests_total{{{SERVER_FAULTS}}}[{window}]))")
                + f") / sum(rate(foldback_grpc_requests_total{{{USERS}}}[{window}])) / 0.001"
                for window in ("5m", "1h", "6h")
            },
            width=9,
        ),
        Panel(
            "Ready",
            "Replicas that are, and engines that work.",
            "short",
            {"replicas": "sum(foldback_serving)", "engines": "sum(foldback_engine_up)"},
            width=9,
        ),
        Panel("Calls by method", "Ended calls.", "reqps", rates("foldback_grpc_requests_total", "method")),
        Panel("Calls by status", "Ended calls.", "reqps", rates("foldback_grpc_requests_total", "code")),
        Panel(
            "Disk in use",
            "Of the volume that holds data_dir. Over nine tenths there is an alert.",
            "percentunit",
            {"{{job}} {{instance}}": "1 - foldback_disk_free_bytes / foldback_disk_size_bytes"},
            maximum=1,
        ),
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
            {
                "in flight": "sum(foldback_requests_in_flight)",
                "waiting": "sum(foldback_requests_queued)",
                "accepted at most": "sum(foldback_requests_in_flight_bound)",
            },
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
}

EVENTS: Mapping[str, tuple[Panel, ...]] = {
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
            "Spool, share of its room",
            "Full, feedback is refused. Over four fifths there is an alert.",
            "percentunit",
            {"{{instance}}": "foldback_spool_bytes / foldback_spool_bound_bytes"},
            maximum=1,
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
        ),
        Panel(
            "By reason",
            "Since the preference store began.",
            "short",
            {"{{reason}}": none_is_zero("sum by (reason) (foldback_dead_letters_total)")},
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
        ),
    ),
}
