"""A version's files: hashed when published, checked against the manifest before anyone loads them."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from registry.manifest import FileEntry

ALLOWED_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".txt"})

Reason = Literal["absent", "bad_manifest", "path", "format", "truncated", "hash", "unknown"]


class ArtifactError(Exception):
    """An artifact that must not be used, and why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def describe(directory: Path) -> dict[str, FileEntry]:
    """Size and hash of every file below `directory`.

    Raises:
        ArtifactError: `path` for a link, `format` for a kind of file that a version may not hold (pickles run code).
    """
    files: dict[str, FileEntry] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            raise ArtifactError("path", f"{name} is a link; a version holds plain files")
        if path.is_file():
            check_name(name)
            files[name] = FileEntry(size=path.stat().st_size, sha256=sha256_of(path))
    return files


def check_name(name: str) -> None:
    """Refuse a path that leaves the version's directory or a format other than safetensors, JSON and text."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise ArtifactError("path", f"{name!r} leaves the version's directory")
    if path.suffix not in ALLOWED_SUFFIXES:
        raise ArtifactError("format", f"{name!r}: a version holds {', '.join(sorted(ALLOWED_SUFFIXES))} only")


def verify(directory: Path, version: str, files: Mapping[str, FileEntry], only: Sequence[str] = ("",)) -> None:
    """Check that every one of `files` is there, whole and unchanged, and that no other file of a kind that is loaded
    stands beside them where paths begin as `only` says. Their names have passed `check_name`.

    Raises:
        ArtifactError: path, absent, truncated, hash or unknown; the detail names the file.
    """
    for name, entry in files.items():
        path = directory / name
        if path.is_symlink() or not path.resolve().is_relative_to(directory.resolve()):
            raise ArtifactError("path", f"{name!r} leaves the version's directory")
        if not path.is_file():
            raise ArtifactError("absent", f"{version}: {name} is missing")
        size = path.stat().st_size
        if size != entry.size:
            raise ArtifactError("truncated", f"{version}: {name} has {size} bytes of {entry.size}")
        if sha256_of(path) != entry.sha256:
            raise ArtifactError("hash", f"{version}: {name} is not what was published")
    for path in directory.rglob("*"):
        name = path.relative_to(directory).as_posix()
        if path.suffix in ALLOWED_SUFFIXES and name.startswith(tuple(only)) and name not in {*files, "manifest.json"}:
            raise ArtifactError("unknown", f"{version}: {name} was not published with it")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_tree(directory: Path) -> None:
    """Flush every file and folder below `directory`: a rename afterwards never shows a version with holes."""
    for path in [directory, *directory.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
