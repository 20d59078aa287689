"""From a version's name to weights that an engine may load: fetched, hashes checked, shapes and values checked."""

import hashlib
import json
from functools import cached_property
from pathlib import Path

from huggingface_hub import snapshot_download

from registry import ArtifactError, Manifest, Registry
from server.engines.adapter_files import check_adapter
from server.engines.base import SwapMode, Weights
from server.engines.weights import BadWeights, check_finite, check_shapes, shapes


class Refusal(Exception):
    """A version that must not be served; the message says why."""


class Versions:
    """All methods block on disk or network: call them in a thread."""

    def __init__(
        self, registry: Registry, model: str, cache_dir: Path, swap_mode: SwapMode, max_adapter_rank: int
    ) -> None:
        self._registry = registry
        self._model = model
        self._cache_dir = cache_dir
        self._swap_mode = swap_mode
        self._max_adapter_rank = max_adapter_rank

    @cached_property
    def base_dir(self) -> Path:
        """Where the base model's own files are."""
        local = Path(self._model)
        return local if local.is_dir() else Path(snapshot_download(self._model))

    @cached_property
    def base_digest(self) -> str:
        """SHA-256 over the base model's weight files, in order of their names."""
        digest = hashlib.sha256()
        for file in sorted(self.base_dir.glob("*.safetensors")):
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()

    @cached_property
    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        return shapes(self.base_dir)

    @cached_property
    def _tied(self) -> frozenset[str]:
        config = json.loads((self.base_dir / "config.json").read_text())
        return frozenset({"lm_head.weight"} if config.get("tie_word_embeddings") else ())

    def prepare(self, version: str) -> tuple[Manifest, Weights]:
        """Raises Refusal when the version is broken or does not fit; OSError when the registry cannot be reached."""
        try:
            manifest = self._registry.manifest(version)
            if manifest.base_digest != self.base_digest:
                raise Refusal(f"{version} was trained from {manifest.base}, whose weights are not this server's base")
            if not manifest.files:
                return manifest, Weights(version, self.base_dir)
            directory = self._registry.fetch(version, self._cache_dir, [f"{self._swap_mode}/"])
            weights = self._fitting(version, directory)
            check_finite(weights.directory)
        except (ArtifactError, BadWeights) as error:
            raise Refusal(str(error)) from error
        return manifest, weights

    def _fitting(self, version: str, directory: Path) -> Weights:
        """The half of the artifact that the swap mode takes. Raises BadWeights."""
        if self._swap_mode == "adapter":
            check_adapter(directory / "adapter", self._expected_shapes, self._max_adapter_rank)
            return Weights(version, directory / "adapter", adapter=True)
        check_shapes(shapes(directory / "weights"), self._expected_shapes, self._tied)
        return Weights(version, directory / "weights")
