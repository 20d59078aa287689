"""What the documents tell people to type, and point them to, exists."""

import os
import re
from pathlib import Path

import pytest
import typer.main

from console.cli import app
from tests.repository.files import ROOT, TOOLS, run, text, tracked

MAKE = re.compile(r"(?:`|^\s*(?:\$ )?)make ([a-z][a-z-]*)", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


def documents() -> list[Path]:
    """The README, which must exist, and every other tracked page."""
    return sorted({Path("README.md"), *tracked("*.md")})


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_readme_names_both_commands() -> None:
    named = set(MAKE.findall((ROOT / "README.md").read_text()))
    assert {"run", "test"} <= named


@pytest.mark.parametrize("document", documents(), ids=str)
def test_make_targets_exist(document: Path) -> None:
    unknown = set(MAKE.findall(text(document) or "")) - targets()
    assert not unknown, f"{document}: no target in the Makefile for {sorted(unknown)}"


@pytest.mark.parametrize("document", documents(), ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    directory = (ROOT / document).parent
    dead = []
    for link, anchor in LINK.findall(text(document) or ""):
        target = directory / link if link else ROOT / document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(f"{link}#{anchor}")
    assert not dead, f"{document}: {dead}"


def anchors(page: Path) -> set[str]:
    """What its headings are called in links."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"", "sh", "python", "js", "yaml", "promql"}
"""Of fenced blocks; without one it is what somebody saw: a drawing, or a screen."""
MARKS = (
    "# needs a cluster\n",
    "# needs helm\n",
    "# needs a running Foldback\n",
    "# needs a running Foldback and grpcurl\n",
)
GUIDES = sorted({Path("README.md"), *tracked("docs/*.md")})


def blocks(document: Path, language: str) -> list[str]:
    return [block for written, block in BLOCK.findall(text(document) or "") if written == language]


@pytest.mark.parametrize("document", GUIDES, ids=str)
def test_blocks_say_what_they_are(document: Path) -> None:
    assert {language for language, _ in BLOCK.findall(text(document) or "")} <= LANGUAGES
    for block in blocks(document, ""):
        assert not re.search(r"^(grpcurl|kubectl|helm|curl|pip) ", block, re.MULTILINE), (
            f"a command; call it sh:\n{block}"
        )


@pytest.mark.slow
@pytest.mark.parametrize("document", GUIDES, ids=str)
def test_commands_run_or_say_what_they_need(document: Path, tmp_path: Path) -> None:
    """In a folder of their own: what a guide makes, like keys, does not end up in the repository."""
    for block in blocks(document, "sh"):
        if block.startswith(MARKS):
            assert all((ROOT / file).exists() for file in re.findall(r"helm/foldback[\w./-]*", block)), block
        elif not all(line.startswith("make ") for line in block.splitlines()):
            assert not re.search(r"\b(kubectl|helm)\b", block), f"mark it '# needs a cluster':\n{block}"
            run("env", f"PATH={TOOLS}:{os.environ['PATH']}", "bash", "-euc", block, cwd=tmp_path)


NAMED = re.compile(r"(?:`|^\$ |^)foldback ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", re.MULTILINE)


@pytest.mark.parametrize("document", documents(), ids=str)
def test_commands_named_exist(document: Path) -> None:
    root = typer.main.get_command(app)
    for name, inner in NAMED.findall(text(document) or ""):
        command = root.commands.get(name)  # type: ignore[attr-defined]
        assert command is not None, f"{document}: there is no 'foldback {name}'"
        if hasattr(command, "commands") and inner:
            assert inner in command.commands, f"{document}: there is no 'foldback {name} {inner}'"
