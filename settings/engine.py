"""`server.vllm:` what only vLLM needs to know; what every engine needs stands in `server:`."""

from typing import Literal

from pydantic import Field

from settings.section import Section


class EngineSettings(Section):
    eager: bool = True
    """Run the model as it is, without compiling it: starts in seconds. Turn off on a GPU for full speed."""
    kv_cache_gib: float = Field(default=1.0, gt=0)
    """Memory for keys and values on CPU. A GPU takes what `gpu_memory_utilization` leaves beside the weights."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of the GPU's memory that vLLM may take."""
    rollout_share: float = Field(default=0.75, gt=0, le=1)
    """Share of `server.max_batch` that rollouts may fill; the rest stands free for users."""
    max_adapters: int = Field(default=4, ge=2)
    """In swap mode adapter: versions in the engine at once, the base aside. The active one, a canary, and those whose
    last requests are still being answered; while all places are taken, a new version waits."""
    max_adapter_rank: Literal[8, 16, 32, 64, 128, 256] = 16
    """In swap mode adapter: the highest `trainer.lora.rank` that is taken. Memory and time go with it."""
