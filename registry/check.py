"""Whether a registry can be read and what it would serve is whole: what `foldback doctor` asks."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import fsspec

from registry.artifact import ArtifactError
from registry.registry import Registry


@dataclass(slots=True)
class Check:
    url: str
    exists: bool = False
    """It has a life-cycle log; the server makes one when it first starts."""
    active: str = ""
    versions: int = 0
    training_state: str = ""
    verified: list[str] = field(default_factory=list)
    """Whose files have the hashes of their manifests: the active one, a canary, and the one to fall back to."""
    broken: dict[str, str] = field(default_factory=dict)
    """Version → what is wrong with it."""


def check(url: str) -> Check:
    """Look at what there is; nothing is made where there is nothing.

    Raises:
        OSError, ValueError: it cannot be read, or its log is damaged.
    """
    found = Check(url)
    filesystem, root = fsspec.core.url_to_fs(url)
    if not filesystem.exists(str(root)) or not filesystem.ls(str(root)):
        return found
    registry = Registry(url)
    state = registry.state()
    found.exists = state.sequence > 0
    found.active, found.versions, found.training_state = state.active or "", len(state.states), state.training_state
    wanted = [state.active, state.canary, *state.good_predecessors()[-1:]]
    with tempfile.TemporaryDirectory() as scratch:
        for version in dict.fromkeys(filter(None, wanted)):
            try:
                registry.fetch(version, Path(scratch))
                found.verified.append(version)
            except ArtifactError as error:
                found.broken[version] = str(error)
    return found
