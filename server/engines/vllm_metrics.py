"""vLLM's own metrics, `vllm:*`, as the server passes them on."""

from typing import Any

from prometheus_client import REGISTRY
from vllm.v1.metrics.loggers import PrometheusStatLogger


class BoundedMetrics(PrometheusStatLogger):  # type: ignore[misc] # untyped here
    """All of them but `vllm:lora_requests_info`: its labels name the adapters in a batch, so that every mix of versions
    that ever ran together would be a series, for as long as the server lives."""

    gauge_lora_info: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.gauge_lora_info is not None:
            REGISTRY.unregister(self.gauge_lora_info)
            self.gauge_lora_info = None
