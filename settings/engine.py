"""`server.vllm:` what only vLLM needs to know; what every engine needs stands in `server:`."""

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
