"""Rules for every tracked file: short enough to read, and from no particular machine."""

import re

import pytest

from tests.repository.files import text, tracked

LONGEST = 300
"""Lines of a Python file that are still read in one sitting."""

MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users|workspace)/\w")
REGISTRY_HOST = re.compile(
    r"\b(?:[\w-]+\.)*(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|download\.pytorch\.org|proxy\.golang\.org"
    r"|crates\.io|deb\.debian\.org|docker\.io|ghcr\.io|quay\.io|nvcr\.io|conda\.anaconda\.org)\b"
)
INDEX_OPTION = re.compile(r"--(?:(?:extra-)?index-ur[l]|find-link[s]|trusted-hos[t])\b")


def test_python_files_are_short() -> None:
    files = [path for path in tracked("*.py") if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))]
    assert files
    long = {str(path): lines for path in files if (lines := len((text(path) or "").splitlines())) > LONGEST}
    assert not long, f"over {LONGEST} lines; split by idea: {long}"


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY_HOST, INDEX_OPTION], ids=["path", "host", "option"])
def test_nothing_names_a_machine(pattern: re.Pattern[str]) -> None:
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in tracked()
        for number, line in enumerate((text(path) or "").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("pattern", "line", "found"),
    [
        (MACHINE_PATH, "model: /home" + "/ann/models", True),
        (MACHINE_PATH, "see /work" + "/main/README.md", True),
        (MACHINE_PATH, "chart/work/tree, ~/work/x and ../home/x", False),
        (REGISTRY_HOST, "https://files.python" + "hosted.org/packages", True),
        (REGISTRY_HOST, "a package from PyPI", False),
    ],
)
def test_the_patterns_find_what_they_should(pattern: re.Pattern[str], line: str, found: bool) -> None:
    assert bool(pattern.search(line)) is found
