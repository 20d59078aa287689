"""The API's definition is clean, and what was generated from it is what is committed."""

import sys

from tests.repository.files import ROOT, TOOLS, run

COMMENTS = '{"version": "v2", "lint": {"use": ["COMMENT_SERVICE", "COMMENT_RPC"], "ignore": ["google"]}}'


def test_protos_pass_buf_lint() -> None:
    run(TOOLS / "buf", "lint", cwd=ROOT / "proto")


def test_stubs_are_fresh() -> None:
    run("env", f"PYTHON={sys.executable}", ROOT / "scripts/generate_stubs.sh", "--check")


def test_services_and_methods_are_documented() -> None:
    run(TOOLS / "buf", "lint", "--config", COMMENTS, cwd=ROOT / "proto")
