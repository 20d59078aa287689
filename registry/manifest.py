"""What a version says about itself: `manifest.json`, written once."""

import hashlib
import json
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=0)
    """Bytes."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class CanaryPrompt(BaseModel):
    """A completion whose logprobs tell whether an engine really serves this version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_token_ids: tuple[int, ...]
    completion_token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Nats, one a completion token, at temperature 1."""


class Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(pattern=r"^p\d{6}-[0-9a-f]{8}$")
    parent: str
    """Empty for the base policy."""
    base: str
    """Name of the base model."""
    base_digest: str
    """SHA-256 of the base model's weights: a version fits no other base."""
    step: int = Field(ge=0)
    create_time: datetime
    files: dict[str, FileEntry]
    """By path relative to the version's directory; empty for the base policy."""
    figures: dict[str, float]
    """Training and gate figures."""
    canary: tuple[CanaryPrompt, ...]

    def to_json(self) -> bytes:
        return self.model_dump_json(indent=1).encode()


def version_name(step: int, parent: str, base_digest: str, files: dict[str, FileEntry]) -> str:
    """`p000012-3fa9c1d2`: the step for people, a digest of content and parentage so that names never repeat."""
    content = [parent, base_digest, *(f"{path}={entry.sha256}" for path, entry in sorted(files.items()))]
    return f"p{step:06d}-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]}"
