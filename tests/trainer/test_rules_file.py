"""rules.yaml: what is accepted, and what a refusal says."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from settings import Settings, SettingsError, load
from settings.rules import MOST_RULES, Constitution, load_rules, read_rules

ROOT = Path(__file__).parents[2]


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_the_shipped_constitution_is_accepted_and_can_veto() -> None:
    shipped = read_rules(ROOT / "rules.yaml")
    assert len(shipped.rules) >= 3
    assert all(rule.veto is not None for rule in shipped.rules)


def test_the_guides_example_is_accepted_and_shows_every_kind() -> None:
    guide = (ROOT / "docs/tuning.md").read_text()
    [example] = [block.split("```")[0] for block in guide.split("```yaml\n")[1:] if block.startswith("rules:")]
    shown = Constitution.model_validate(yaml.safe_load(example))
    kinds = {kind.model_fields["kind"].annotation.__args__[0] for kind in _kinds()}
    assert {rule.kind for rule in shown.rules} == kinds


def _kinds() -> tuple[Any, ...]:
    union = Constitution.model_fields["rules"].annotation.__args__[0].__origin__  # type: ignore[union-attr]
    kinds: tuple[Any, ...] = union.__args__
    return kinds


@pytest.mark.parametrize("empty", ["", "rules: []"])
def test_an_empty_file_has_no_rules(tmp_path: Path, empty: str) -> None:
    assert read_rules(written(tmp_path, empty)).rules == []


OK = {"name": "fine", "kind": "refusal"}


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([OK, {"name": "long", "kind": "length", "mots": 5}], "rule 2 (long), mots: no such field"),
        ([{"name": "long", "kind": "length", "most": 0}], "rule 1 (long), most=0: Input should be greater than"),
        ([{"name": "long", "kind": "length", "least": 9, "most": 3}], "most=3 is under least=9"),
        ([{"name": "heavy", "kind": "refusal", "weight": -1}], "rule 1 (heavy), weight=-1"),
        ([{"name": "hard", "kind": "refusal", "veto": 1.5}], "rule 1 (hard), veto=1.5"),
        ([{"name": "Bad Name", "kind": "refusal"}], "rule 1 (Bad Name), name='Bad Name'"),
        ([{"kind": "refusal"}], "rule 1 (unnamed), name: Field required"),
        ([{"name": "what", "kind": "politeness"}], "rule 1 (what)"),
        ([{"name": "what"}], "rule 1 (what): Unable to extract tag"),
        ([{"name": "re", "kind": "patterns", "forbidden": ["("]}], "'(' is no regular expression"),
        ([{"name": "re", "kind": "patterns"}], "neither forbidden nor required patterns"),
        ([{"name": "ph", "kind": "phrases", "banned": [" "]}], "' ' has no words"),
        ([{"name": "ph", "kind": "phrases", "banned": []}], "rule 1 (ph), banned=[]"),
        ([{"name": "f", "kind": "format", "format": "xml"}], "rule 1 (f), format='xml'"),
        ([{"name": "s", "kind": "script", "script": "klingon"}], "rule 1 (s), script='klingon'"),
        ([OK, OK], "two rules named fine; rename one"),
        ([{"name": f"r{i}", "kind": "refusal"} for i in range(MOST_RULES + 1)], f"at most {MOST_RULES} items"),
        (["no_echo"], "rule 1 (unnamed)"),
        ("none", "rules='none'"),
    ],
)
def test_refusals_name_the_rule_and_the_field(tmp_path: Path, rules: object, says: str) -> None:
    path = written(tmp_path, {"rules": rules})
    with pytest.raises(SettingsError) as refused:
        read_rules(path)
    assert says in str(refused.value)
    assert str(path) in str(refused.value)


def test_unknown_keys_beside_the_rules_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="vetoes: no such field"):
        read_rules(written(tmp_path, {"rules": [], "vetoes": 1}))


@pytest.mark.parametrize("text", ["rules: [", "- just a list", "\tx"])
def test_what_is_no_constitution_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError):
        read_rules(written(tmp_path, text))


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a foldback.yaml."""
    (tmp_path / "foldback.yaml").write_text("")
    monkeypatch.setenv("FOLDBACK_CONFIG", str(tmp_path / "foldback.yaml"))
    return tmp_path


def test_it_is_found_beside_the_settings_wherever_one_works(configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_rules(load()).rules == []
    written(configured, {"rules": [OK]})
    assert [rule.name for rule in load_rules(load()).rules] == ["fine"]


def test_a_file_that_is_named_must_exist(configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDBACK_TRAINER__RULES_FILE", "other.yaml")
    with pytest.raises(SettingsError, match=r"trainer\.rules_file=other\.yaml: no file .*other\.yaml; write it"):
        load_rules(load())
    (configured / "other.yaml").write_text("rules: []")
    assert isinstance(load(), Settings)
    assert load_rules(load()).rules == []
