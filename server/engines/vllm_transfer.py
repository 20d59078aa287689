"""The worker's half of a hot swap: a version's safetensors, from disk into the running model.

vLLM imports this module in every worker process (`worker_extension_cls`), which registers the backend there. Its own
loaders shard the tensors, so the same code serves any tensor parallel size. The trainer sends nothing: it publishes
files, and each replica reads them when it likes.
"""

from dataclasses import dataclass
from pathlib import Path

from vllm.distributed.weight_transfer import WeightTransferEngine, WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload.layerwise import (
    _place_kernel_tensors,
    finalize_layerwise_reload,
    get_layerwise_info,
    initialize_layerwise_reload,
)

from server.engines.weights import BadWeights, tensors, unit

BACKEND = "foldback-files"


class WorkerExtension:
    """Named in the engine's arguments so that vLLM imports this module; adds nothing to the worker."""


@dataclass
class Nothing(WeightTransferInitInfo):  # type: ignore[misc] # untyped here
    """Files need no rendezvous."""


@dataclass
class Files(WeightTransferUpdateInfo):  # type: ignore[misc] # untyped here
    directory: str
    """Holds *.safetensors with every tensor of the model, in checkpoint names and shapes."""
    names: list[str] | None
    """Load these: whole units (server.engines.weights.unit). None: all."""


class FileTransferEngine(WeightTransferEngine[Nothing, Files]):  # type: ignore[misc] # untyped here
    init_info_cls = Nothing
    update_info_cls = Files

    def init_transfer_engine(self, init_info: Nothing) -> None:
        pass

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: Files) -> None:
        names = None if update_info.names is None else set(update_info.names)
        self._heads_are_old = names is None or any(unit(name) == name for name in names)
        units = None if names is None else {unit(name) for name in names}
        parameters = {name for name, _ in self.model.named_parameters()}
        expected = {name for name in parameters if units is None or unit(name) in units}
        try:
            loaded = self.model.load_weights(tensors(Path(update_info.directory), names))
            if loaded is not None and (missing := sorted(expected - loaded - self._tied())):
                raise BadWeights(f"{len(missing)} parameters were not loaded: {', '.join(missing[:3])}")
        except BaseException:
            self._abandon()
            raise

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        # A tied head has no tensor of its own in the file, so vLLM does not notice that its copy, packed for the CPU's
        # matrix kernels, is now an old one, unless nothing outside the decoder layers has changed.
        for head in self._heads() if self._heads_are_old else []:
            head.quant_method.process_weights_after_loading(head)

    def shutdown(self) -> None:
        pass

    def _heads(self) -> list[ParallelLMHead]:
        return [module for module in self.model.modules() if isinstance(module, ParallelLMHead)]

    def _tied(self) -> set[str]:
        if not self.model_config.hf_config.get_text_config().tie_word_embeddings:
            return set()
        heads = self._heads()
        return {
            f"{path}.{name}"
            for path, module in self.model.named_modules()
            if module in heads
            for name, _ in module.named_parameters()
        }

    def _abandon(self) -> None:
        """Give half-loaded layers their kernels' tensors back, so that another update can start.

        vLLM leaves them on the meta device with the tensors of the failed update queued, which the next update would
        load again and count twice.
        """
        for layer in self.model.modules():
            info = get_layerwise_info(layer)
            if info.can_load():
                _place_kernel_tensors(layer, info)
                info.reset()


if BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND, FileTransferEngine)
