"""Where versions' files are: published once, never changed, verified whenever they are fetched."""

import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from registry.artifact import ArtifactError, check_name, describe, fsync_tree, verify
from registry.manifest import CanaryPrompt, Manifest, version_name


class Artifacts:
    """Safe to share between threads and processes: a version is there whole or not at all."""

    def __init__(self, filesystem: Any, root: str) -> None:
        """`filesystem` is fsspec's, `root` the registry's own path on it."""
        self._fs = filesystem
        self._root = root
        self._fs.makedirs(f"{root}/versions", exist_ok=True)

    def publish(
        self,
        draft: Path,
        *,
        step: int,
        parent: str,
        base: str,
        base_digest: str,
        figures: dict[str, float],
        canary: Sequence[CanaryPrompt] = (),
    ) -> Manifest:
        """Make the files below `draft` an immutable version. `draft` is consumed.

        Publishing the same again (after a crash, say) gives the version that is there.

        Raises:
            ArtifactError: a file that a version may not hold.
        """
        files = describe(draft)
        manifest = Manifest(
            version=version_name(step, parent, base_digest, files),
            parent=parent,
            base=base,
            base_digest=base_digest,
            step=step,
            create_time=datetime.now(UTC),
            files=files,
            figures=figures,
            canary=tuple(canary),
        )
        if self.has(manifest.version):
            shutil.rmtree(draft)
            return self.manifest(manifest.version)
        self._store(draft, manifest)
        return manifest

    def publish_base(self, base: str, base_digest: str, canary: Sequence[CanaryPrompt] = ()) -> Manifest:
        """The version before any learning: no files, the base model itself. Publishing it again changes nothing."""
        name = version_name(0, "", base_digest, {})
        if self.has(name):
            return self.manifest(name)
        draft = self._draft()
        draft.mkdir(parents=True)
        return self.publish(draft, step=0, parent="", base=base, base_digest=base_digest, figures={}, canary=canary)

    def has(self, version: str) -> bool:
        """It was published, and not collected since. Raises OSError: out of reach."""
        return bool(self._fs.exists(self._manifest_path(version)))

    def manifest(self, version: str) -> Manifest:
        """Raises ArtifactError: absent (never published, or collected) or bad_manifest."""
        try:
            data = self._fs.cat_file(self._manifest_path(version))
        except (FileNotFoundError, NotADirectoryError):
            raise ArtifactError("absent", f"{version} is not in the registry") from None
        try:
            manifest = Manifest.model_validate_json(data)
        except ValidationError as error:
            raise ArtifactError("bad_manifest", f"{version}: {error.errors()[0]['msg']}") from None
        if manifest.version != version:
            raise ArtifactError("bad_manifest", f"{version}: its manifest names {manifest.version}")
        return manifest

    def fetch(self, version: str, cache_dir: Path, only: Sequence[str] = ("",)) -> Path:
        """A local directory with the version's files.

        Args:
            cache_dir: where copies are kept, unless the registry itself is on a local disk.
            only: beginnings of paths, as "adapter/". Files that begin otherwise are not read, may be missing, and have
                not been verified: merged weights are a hundred times an adapter's size.

        Raises:
            ArtifactError: a file is not as it was published; OSError: out of reach.
        """
        manifest = self.manifest(version)
        for name in manifest.files:
            check_name(name)
        files = {name: entry for name, entry in manifest.files.items() if name.startswith(tuple(only))}
        if isinstance(self._fs, LocalFileSystem):
            directory = Path(self._version_path(version))
            verify(directory, version, files, only)
            return directory
        directory = cache_dir / version
        with suppress(ArtifactError):  # not copied yet, or the copy was damaged since
            verify(directory, version, files, only)
            return directory
        draft = cache_dir / f"{version}.{uuid.uuid4().hex}"
        try:
            for name in files:
                self._copy(f"{self._version_path(version)}/{name}", draft / name)
            verify(draft, version, files, only)
            for name in files:
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                (draft / name).replace(directory / name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return directory

    def remove(self, version: str) -> None:
        """For ever: its name is never given again."""
        self._fs.rm(self._manifest_path(version))
        self._fs.rm(self._version_path(version), recursive=True)

    def _copy(self, remote: str, local: Path) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # whoever verifies says which file is missing
            self._fs.get_file(remote, str(local))

    def _store(self, draft: Path, manifest: Manifest) -> None:
        target = self._version_path(manifest.version)
        if isinstance(self._fs, LocalFileSystem):
            (draft / "manifest.json").write_bytes(manifest.to_json())
            inside = self._draft()
            inside.parent.mkdir(exist_ok=True)
            shutil.move(draft, inside)
            fsync_tree(inside)
            inside.rename(target)
        else:
            for name in manifest.files:
                self._fs.put_file(str(draft / name), f"{target}/{name}")
            # Last: on an object store a version exists once its manifest does.
            self._fs.pipe_file(self._manifest_path(manifest.version), manifest.to_json())
            shutil.rmtree(draft)

    def _draft(self) -> Path:
        local = isinstance(self._fs, LocalFileSystem)
        parent = Path(self._root) / "drafts" if local else Path(fsspec.config.conf.get("tmp", "/tmp"))
        return parent / uuid.uuid4().hex

    def _version_path(self, version: str) -> str:
        return f"{self._root}/versions/{version}"

    def _manifest_path(self, version: str) -> str:
        return f"{self._version_path(version)}/manifest.json"
