import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import Manifest, Registry

BASE_DIGEST = "ab" * 32


@pytest.fixture(params=["file", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """A local registry and one on an object-store-like filesystem: the same tests hold for both."""
    url = (tmp_path / "registry").as_uri() if request.param == "file" else f"memory://{uuid.uuid4().hex}"
    return Registry(url)


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Manifest]:
    def publish(registry: Registry, step: int = 1, parent: str = "", content: str = "") -> Manifest:
        draft = tmp_path / uuid.uuid4().hex
        (draft / "adapter").mkdir(parents=True)
        (draft / "adapter" / "adapter_config.json").write_text(json.dumps({"content": content or draft.name}))
        for folder in ("adapter", "weights"):
            (draft / folder).mkdir(exist_ok=True)
            (draft / folder / "model.safetensors").write_text(f"{folder} {content or draft.name}")
        return registry.publish(
            draft, step=step, parent=parent, base="tiny", base_digest=BASE_DIGEST, figures={"kl": 1.5}
        )

    return publish
