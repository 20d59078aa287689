"""What the documents show of a running Foldback works on one. (The runbooks' commands: tests/helm/test_runbooks.py.)"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.stack import Stack
from tests.repository.files import ROOT, TOOLS
from tests.repository.test_documents import GUIDES, blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
RUNNING = "# needs a running Foldback"
RUNBOOKS = Path("docs/runbooks.md")
SHELL = [(document, block) for document in GUIDES for block in blocks(document, "sh") if block.startswith(RUNNING)]
PYTHON = [(document, block) for document in GUIDES for block in blocks(document, "python")]
[NODE] = blocks(Path("README.md"), "js")
NODE_PACKAGES = ("@grpc/grpc-js", "@grpc/proto-loader")


def run(stack: Stack, *command: str) -> str:
    """In the repository's root, as a reader would; what it printed."""
    environment = stack.environment | {"PATH": f"{TOOLS}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
    return done.stdout


def here(example: str, stack: Stack) -> str:
    return example.replace("127.0.0.1:50051", f"127.0.0.1:{stack.ports['SERVER__PORT']}")


def name(value: object) -> str:
    return str(value) if isinstance(value, Path) else re.sub(r"\W+", "_", str(value).splitlines()[1])[:40]


@pytest.mark.parametrize(("document", "block"), [one for one in SHELL if one[0] != RUNBOOKS], ids=name)
def test_commands_run(document: Path, block: str, live_stack: Stack) -> None:
    if "grpcurl" in block and shutil.which("grpcurl") is None:
        pytest.skip("grpcurl is not on this machine")
    assert run(live_stack, "bash", "-euc", here(block, live_stack)).strip()


@pytest.mark.parametrize(("document", "block"), PYTHON, ids=name)
def test_python_runs(document: Path, block: str, live_stack: Stack) -> None:
    assert run(live_stack, sys.executable, "-c", here(block, live_stack)).strip()


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not on this machine")
def test_node_runs(live_stack: Stack) -> None:
    """Where its packages are not installed (NODE_PATH), the syntax alone is checked."""
    installed = subprocess.run(["node", "-e", "".join(f"require('{package}');" for package in NODE_PACKAGES)],
                               cwd=ROOT, capture_output=True, check=False).returncode == 0  # fmt: skip
    if not installed:
        run(live_stack, "node", "-e", "new (require('vm').Script)(process.argv[1])", "--", NODE)
        pytest.skip(f"{' and '.join(NODE_PACKAGES)} are not on this machine: checked for syntax only")
    assert re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-5", run(live_stack, "node", "-e", here(NODE, live_stack)))
