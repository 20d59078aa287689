"""Who may import whom (DESIGN §1; the contracts are in pyproject.toml)."""

import subprocess
import sys

import pytest

from tests.repository.files import ROOT, TOOLS, run

LIGHT = ("settings", "feedback", "registry", "console")
"""Packages that must start at once: none of their modules loads torch."""

IMPORT_ALL = f"""
import importlib, pkgutil, sys
for package in {LIGHT}:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            assert "torch" not in sys.modules, f"{{module.name}} loads torch"
"""


def test_import_rules_hold() -> None:
    run(TOOLS / "lint-imports", "--no-cache", "--no-logo")


@pytest.mark.slow
def test_light_packages_do_not_load_torch() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
