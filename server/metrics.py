"""What the server tells Prometheus (names: base units, bounded labels). The engine's own `vllm:*` stand beside it."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

GRPC_REQUESTS = Counter("foldback_grpc_requests", "Calls ended.", ["method", "code"])
GRPC_DURATION = Histogram(
    "foldback_grpc_request_duration_seconds", "From the call's start to its status.", ["method"], buckets=_SECONDS
)
TIME_TO_FIRST_TOKEN = Histogram(
    "foldback_time_to_first_token_seconds", "From the call's start to its first token.", ["slot"], buckets=_SECONDS
)
TIME_PER_OUTPUT_TOKEN = Histogram(
    "foldback_time_per_output_token_seconds",
    "Mean time between a candidate's tokens after its first.",
    ["slot"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
SERVING = Gauge("foldback_serving", "1 while this replica is ready: it has a policy, an engine, and does not drain.")
ENGINE_UP = Gauge("foldback_engine_up", "1 while the engine works; 0 before it is loaded and once it has died.")
IN_FLIGHT = Gauge("foldback_requests_in_flight", "Chats accepted and not yet ended.")
IN_FLIGHT_BOUND = Gauge("foldback_requests_in_flight_bound", "The most that are accepted: server.max_in_flight.")
QUEUED = Gauge("foldback_requests_queued", "Chats accepted that wait for their first token.")
ABORTED = Counter("foldback_requests_aborted", "Chats that ended before all candidates finished.", ["reason"])
FEEDBACK_RECEIVED = Counter("foldback_feedback_received", "Feedback submitted.", ["kind", "source", "result"])
THUMBS = Counter("foldback_thumbs", "Thumbs accepted, up or down, as users gave them.", ["direction"])
for _direction in ("up", "down"):
    THUMBS.labels(_direction)  # from 0: a first thumb is an increase
RATE_LIMITED = Counter("foldback_feedback_rate_limited", "Feedback refused because its rater sends too much.")
FEEDBACK_DELAY = Histogram(
    "foldback_feedback_delay_seconds",
    "From serving an answer to feedback on it.",
    ["kind"],
    buckets=(1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 86400, 7 * 86400),
)
POLICY_INFO = Gauge("foldback_policy_info", "1 for the version that a slot serves.", ["version", "slot"])
POLICY_AGE = Gauge("foldback_policy_age_seconds", "Since the version being served was published.")
POLICY_SKEW = Gauge("foldback_policy_skew_versions", "Promotions that this replica has not followed yet.")
SWAP_DURATION = Histogram(
    "foldback_weight_swap_duration_seconds",
    "From the start of a swap to the canary check's end.",
    ["mode"],
    buckets=_SECONDS,
)
SWAPS = Counter("foldback_weight_swaps", "Swaps by result: served, refused, restored, failed.", ["result"])
for _result in ("served", "refused", "restored", "failed"):
    SWAPS.labels(_result)  # from 0, as above
ENGINE_PAUSED = Gauge("foldback_engine_paused", "1 while the engine takes new weights.")
