"""Policy versions: immutable artifacts and their life cycle, on any fsspec filesystem."""

from registry.artifact import ArtifactError
from registry.journal import RegistryAway, Transition
from registry.lease import Lease
from registry.lifecycle import ActiveChanged, IllegalTransition, PolicyState, RegistryState
from registry.manifest import CanaryPrompt, Manifest
from registry.registry import Registry

__all__ = [
    "ActiveChanged",
    "ArtifactError",
    "CanaryPrompt",
    "IllegalTransition",
    "Lease",
    "Manifest",
    "PolicyState",
    "Registry",
    "RegistryAway",
    "RegistryState",
    "Transition",
]
