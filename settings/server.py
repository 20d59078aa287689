"""`server:` the gRPC inference server."""

from typing import Literal

from pydantic import Field

from settings.access import AccessSettings
from settings.engine import EngineSettings
from settings.section import Section


class ServerSettings(Section):
    host: str = "127.0.0.1"
    """Address that both ports bind."""
    port: int = Field(default=50051, ge=0, le=65535)
    """ChatService and FeedbackService. 0 picks a free port."""
    admin_port: int = Field(default=50052, ge=0, le=65535)
    """PolicyService and RolloutService. 0 picks a free port."""
    metrics_port: int = Field(default=9464, ge=0, le=65535)
    """Prometheus text. 0 picks a free port."""
    access: AccessSettings = Field(default_factory=AccessSettings)
    """API keys, quotas and TLS. Without them both ports are open to whoever reaches them."""
    keepalive_time_s: float = Field(default=30.0, ge=1)
    """A connection this long without a sign of life is pinged."""
    keepalive_timeout_s: float = Field(default=10.0, ge=1)
    """How long the answer to a ping may take before the client is taken for gone."""
    max_connection_age_s: float = Field(default=900.0, ge=1)
    """How old a connection may grow, give or take a tenth; calls on it finish, and new ones go to a new connection."""
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: vLLM where it is installed, else transformers, and the log says so."""
    swap_mode: Literal["auto", "weights", "adapter"] = "auto"
    """How new versions reach the engine. weights: merged, put in the place of the last between two tokens; full decode
    speed, a short pause, one version at a time. adapter (vLLM): as LoRA adapters beside each other; no pause, and a
    canary shares the replica with the active version. auto: adapter on a GPU, else weights."""
    canary_share: float = Field(default=0.2, gt=0, le=0.5)
    """How much of the traffic a canary gets. In swap mode adapter: of the conversations, each wholly one version's. In
    mode weights: of the replicas, rounded up; a single one serves the canary alone until it is decided."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """What the engine computes in. auto: bfloat16 where the machine multiplies it, else float32, which then is about
    three times as fast (a CPU without AVX512-BF16, AMX or ARM's BF16)."""
    torch_threads: int = Field(default=0, ge=0)
    """Threads of the engine's arithmetic. 0: as many as there are cores for this process, by its container's limit and
    its CPU affinity; with vLLM one fewer, for all else."""
    max_model_len: int = Field(default=2048, ge=16)
    """Prompt and completion tokens together; never more than the model was trained for."""
    max_batch: int = Field(default=32, ge=1)
    """Candidates decoded at once; the others wait."""
    vllm: EngineSettings = Field(default_factory=EngineSettings)
    """What only vLLM needs to know."""
    max_in_flight: int = Field(default=256, ge=1)
    """Chat calls accepted at once, waiting or decoding; one more is answered RESOURCE_EXHAUSTED."""
    max_rollouts_in_flight: int = Field(default=64, ge=1)
    """Rollout samples asked of the engine at once: enough to keep its batch full."""

    default_temperature: float = Field(default=0.7, ge=0, le=2)
    """Where a request names none. Training draws its rollouts at `trainer.temperature`: keep the two alike, so that
    what is learned is what users see."""
    default_top_p: float = Field(default=1.0, gt=0, le=1)
    """Where a request names none."""
    default_top_k: int = Field(default=0, ge=0)
    """Where a request names none. 0 keeps the whole vocabulary."""
    default_max_tokens: int = Field(default=256, ge=1)
    """Where a request names none; cut to what the model's length leaves after the prompt."""
    default_deadline_s: float = Field(default=60.0, gt=0)
    """For a call whose client set no deadline."""
    drain_timeout_s: float = Field(default=30.0, ge=0)
    """After SIGTERM: how long calls in flight may take to finish before they are cut off."""

    canary_tolerance_nats: float = Field(default=0.2, gt=0)
    """How far the canary logprobs of a swapped version may be from the trainer's: mean absolute difference a token.
    bf16 kernels differ by about 0.05."""
    swap_timeout_s: float = Field(default=60.0, gt=0)
    """A swap that takes longer has failed."""
