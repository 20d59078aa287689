"""Documents that are made from the code are fresh, and speak of settings that exist."""

import re
from pathlib import Path

import pytest

from scripts.document_api import PAGES
from tests.repository.files import ROOT


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_fresh(path: Path) -> None:
    assert path.read_text() == PAGES[path](), "run 'python -m scripts.document_api' and commit"


def test_settings_named_in_the_guides_exist() -> None:
    """`section.field`, as foldback.yaml has them; the chart's values are checked with the chart."""
    from tests.repository.test_settings import FIELDS

    for name in ("tuning", "security"):
        text = (ROOT / f"docs/{name}.md").read_text()
        named = set(re.findall(r"`((?:trainer|server|feedback|console)\.[a-z_0-9.]+?)(?:: [^`]*)?`", text))
        assert named
        assert named <= set(FIELDS), f"{name}.md: {named - set(FIELDS)}"
