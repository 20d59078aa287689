"""`server:` the gRPC inference server."""

from typing import Literal

from pydantic import Field

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
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: vLLM where it is installed, else transformers, and the log says so."""
    swap_mode: Literal["auto", "weights", "adapter"] = "auto"
    """How new versions reach the engine. auto: adapter on GPU, weights on CPU."""
