"""Files that one process alone can create, on any fsspec filesystem: what agreement between processes rests on."""

import os
import uuid
from typing import Any

from fsspec.implementations.local import LocalFileSystem


def create_exclusively(filesystem: Any, path: str, data: bytes) -> None:
    """Create `path` with all of `data` or not at all. Raises FileExistsError: somebody was first."""
    if isinstance(filesystem, LocalFileSystem):
        _link_whole(path, data)
    else:
        filesystem.pipe_file(path, data, mode="create")


def _link_whole(path: str, data: bytes) -> None:
    """A hard link fails if the name is taken."""
    draft = f"{path}.{uuid.uuid4().hex}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
        os.link(draft, path)
    finally:
        os.close(descriptor)
        os.unlink(draft)
