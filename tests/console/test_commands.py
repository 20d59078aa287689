"""Commands as a person types them, against a real gRPC server."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer.main

from console.cli import app
from console.completion import personas, versions
from console.verdict import reasons
from foldback.v1 import feedback_pb2, policy_pb2
from tests.console.conftest import Foldback
from tests.console.fake_server import BASE, FakeFoldback

NOWHERE = {"FOLDBACK_CONSOLE__ADDRESS": "127.0.0.1:9", "FOLDBACK_CONSOLE__ADMIN_ADDRESS": "127.0.0.1:9"}


def commands(group: Any = None, prefix: str = "") -> dict[str, Any]:
    """Every command by what is typed after `foldback`."""
    found: dict[str, Any] = {}
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        inner = hasattr(command, "commands")
        found |= commands(command, f"{prefix}{name} ") if inner else {prefix + name: command}
    return found


def only(fake: FakeFoldback) -> feedback_pb2.Feedback:
    assert len(fake.feedback) == 1
    return next(iter(fake.feedback.values()))


def test_chat_streams_and_takes_a_thumb(foldback: Foldback, fake_server: FakeFoldback) -> None:
    result = foldback("chat", input="hello there\nd\n")
    assert result.exit_code == 0
    assert f"Answer 0 of {BASE} to: hello there" in result.output
    feedback = only(fake_server)
    assert feedback.thumbs == feedback_pb2.THUMBS_DOWN
    assert list(feedback.feedback_tokens) == ["token-1"]
    assert feedback.candidate_id == "candidate-1-0"
    assert feedback.rater_id == "console"
    assert fake_server.chats[0].training_consent


def test_chat_keeps_the_conversation(foldback: Foldback, fake_server: FakeFoldback) -> None:
    foldback("chat", "--system", "be kind", "--no-consent", input="first\n\nsecond\nu\nthird\nq\nnever\n")
    assert [chat.messages[-1].content for chat in fake_server.chats] == ["first", "second", "third"]
    third = fake_server.chats[2]
    assert [message.content for message in third.messages] == [
        "be kind",
        "first",
        f"Answer 0 of {BASE} to: first",
        "second",
        f"Answer 0 of {BASE} to: second",
        "third",
    ]
    assert third.conversation_id == "conversation-1"
    assert not third.training_consent
    assert only(fake_server).thumbs == feedback_pb2.THUMBS_UP


def test_chat_compares_with_another_answer(foldback: Foldback, fake_server: FakeFoldback) -> None:
    foldback("chat", input="tea?\nr\n2\nmore\n\n")
    assert fake_server.chats[1].regenerate_of == "response-1"
    assert fake_server.chats[1].conversation_id == "conversation-1"
    feedback = only(fake_server)
    assert list(feedback.feedback_tokens) == ["token-1", "token-2"]
    assert [list(tier.candidate_ids) for tier in feedback.ranking.tiers] == [["candidate-2-0"], ["candidate-1-0"]]


def test_chat_takes_an_edit_as_demonstration_and_goes_on_from_it(foldback: Foldback, fake_server: FakeFoldback) -> None:
    foldback("chat", input="tea?\ne\nYou warm the pot.\nand then?\n\n")
    assert only(fake_server).demonstration == feedback_pb2.Demonstration(
        candidate_id="candidate-1-0", text="You warm the pot."
    )
    assert fake_server.chats[1].messages[1].content == "You warm the pot."


def test_chat_asks_again_for_an_unknown_key(foldback: Foldback, fake_server: FakeFoldback) -> None:
    result = foldback("chat", input="tea?\nx\nu\n")
    assert "'x' is none of" in result.output
    assert only(fake_server).thumbs == feedback_pb2.THUMBS_UP


def test_chat_without_a_server_says_what_to_do(foldback: Foldback, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)
    result = foldback("chat", input="hello\n")
    assert result.exit_code == 1
    assert "nobody answers at 127.0.0.1:9: start Foldback with 'foldback up'" in result.stderr
    assert "Traceback" not in result.output


def test_rank_is_blind_and_in_display_order(foldback: Foldback, fake_server: FakeFoldback) -> None:
    result = foldback("rank", "tea?", "-n", "3", input="2>1\n2>1=3\n")
    assert result.exit_code == 0
    assert "3 is missing" in result.output
    served = fake_server.served["token-1"]
    order = [served.candidates[index].candidate_id for index in served.display_order]
    shown = [result.output.index(f"Answer {index} of") for index in served.display_order]
    assert shown == sorted(shown)
    tiers = [list(tier.candidate_ids) for tier in only(fake_server).ranking.tiers]
    assert tiers == [[order[1]], [order[0], order[2]]]
    assert result.output.index(BASE + " ·") > max(shown), "the version is told after the order"


def test_rank_none_rejects_all(foldback: Foldback, fake_server: FakeFoldback) -> None:
    foldback("rank", "tea?", input="none\n")
    ranking = only(fake_server).ranking
    assert ranking.rejected_all
    assert not ranking.tiers


def test_rank_at_the_end_of_input_sends_nothing(foldback: Foldback, fake_server: FakeFoldback) -> None:
    assert "nothing was sent" in foldback("rank", "tea?", input="").output
    assert not fake_server.feedback


def test_policies_promote_and_rollback(foldback: Foldback, fake_server: FakeFoldback) -> None:
    assert "p000000-base0000" in foldback("policies").output
    refused = foldback("promote", "p000009-x")
    assert refused.exit_code == 1
    assert "no version p000009-x: 'foldback policies' lists" in refused.stderr
    assert f"serving {BASE}" in foldback("promote", "p0", "--reason", "test").output
    assert f"serving {BASE}" in foldback("rollback").output
    listed = json.loads(foldback("policies", "--json").output)
    assert listed["serving_version"] == BASE
    assert listed["policies"][0]["state"] == "POLICY_STATE_ACTIVE"


def test_one_version_in_full_says_why_it_was_rejected(foldback: Foldback, fake_server: FakeFoldback) -> None:
    fake_server.described[BASE] = policy_pb2.Policy(
        version=BASE,
        state=policy_pb2.POLICY_STATE_REJECTED,
        reason="win rate 0.38, win rate bound 0.28 ~ 0.4",
        figures={"gate_win_rate": 0.38, "ppo_loss": 0.125},
    )
    told = foldback("policies", "p0").output
    assert "rejected" in told
    assert "win rate, lower bound 28%, at least 40% is asked: too few answers to show more" in " ".join(told.split())
    assert re.search(r"win rate +38% +gate_win_rate", told)
    assert re.search(r"ppo_loss +0\.125", told)
    assert json.loads(foldback("policies", "p0", "--json").output)["state"] == "POLICY_STATE_REJECTED"
    assert foldback("policies", "p7").exit_code == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("passed the gate", ["passed the gate"]),
        ("p000007-c5c0b75c took its place, at last", ["p7 took its place, at last"]),
        (
            "win rate 0.60, kl nats 31.20 > 25, length ratio 0.31 < 0.5",
            ["from the reference 31.2 nats, at most 25.0 nats is allowed", "length × 0.31, at least × 0.50 is asked"],
        ),
        ("win rate nan, finite 0.00 < 1", ["its weights or figures are not finite numbers"]),
        ("win rate 0.55, surprise 3.00 > 2", ["surprise 3, at most 2 is allowed"]),
        (
            "win rate 0.55, rule no pitch 0.30 > 0.1",
            ["answers that break the rule no pitch 30%, at most 10% is allowed"],
        ),
        ("", []),
    ],
)
def test_the_gates_checks_are_told_in_words(text: str, said: list[str]) -> None:
    assert reasons(text) == said


def test_the_shell_is_told_versions_and_personas(fake_server: FakeFoldback, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("p0", f"active {BASE}") in versions("p")
    assert versions("q") == []
    assert [name for name, _ in personas("b")] == ["brief"]
    monkeypatch.setenv("FOLDBACK_CONSOLE__ADMIN_ADDRESS", "127.0.0.1:9")
    assert versions("p") == []


def test_the_shell_asks_the_command() -> None:
    """As bash does it, with the line so far in variables."""
    asked = {"_FOLDBACK_COMPLETE": "complete_bash", "COMP_WORDS": "foldback simulate --persona br", "COMP_CWORD": "3"}
    command = [str(Path(sys.executable).parent / "foldback")]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["brief"]


def test_every_command_teaches(foldback: Foldback) -> None:
    """Help in a sentence, options explained, and where a table is printed a way to get JSON."""
    tables = {"status", "doctor", "policies", "audit", "raters", "dlq ls", "topics check", "config check"}
    for name, command in commands().items():
        told = foldback(*name.split(), "--help").output
        assert command.help.split()[0] in told
        assert ("--json" in told) is (name in tables), name
        assert all(option.help for option in command.params), name


def test_training_is_paused_and_resumed(foldback: Foldback, fake_server: FakeFoldback) -> None:
    assert "resume-training" in foldback("pause-training").output
    assert fake_server.training == policy_pb2.TRAINING_STATE_PAUSED
    foldback("resume-training")
    assert fake_server.training == policy_pb2.TRAINING_STATE_RUNNING


def test_a_call_is_retried_while_the_server_loads(foldback: Foldback, fake_server: FakeFoldback) -> None:
    fake_server.failures.append((grpc.StatusCode.UNAVAILABLE, 0.05))
    assert foldback("policies").exit_code == 0


def test_simulate_ends_with_figures(foldback: Foldback, fake_server: FakeFoldback) -> None:
    arguments = ("--persona", "brief", "--conversations", "12", "--rate", "100", "--candidates", "2")
    result = foldback("simulate", *arguments)
    assert result.exit_code == 0, result.output
    assert "served 12" in result.output
    assert "failed 0" in result.output
    assert len(fake_server.chats) == 12


def test_simulate_counts_failures_and_says_so(foldback: Foldback, fake_server: FakeFoldback) -> None:
    fake_server.failures.extend([(grpc.StatusCode.UNAVAILABLE, 0.01)] * 3)
    result = foldback("simulate", "--conversations", "5", "--rate", "100")
    assert result.exit_code == 1
    assert "3 requests failed" in result.stderr


def test_an_unknown_persona_is_refused_by_name(foldback: Foldback) -> None:
    result = foldback("simulate", "--persona", "grumpy")
    assert result.exit_code == 2
    assert "second_person" in result.stderr


def test_config_check(foldback: Foldback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDBACK_SERVER__PORT", "7000")
    accepted = foldback("config", "check")
    assert accepted.exit_code == 0
    assert "server.port = 7000" in accepted.output
    monkeypatch.setenv("FOLDBACK_CONSOLE__WEB_TOKEN", "hush")
    told = json.loads(foldback("config", "check", "--json").output)
    assert told["settings"]["server"]["port"] == 7000
    assert "hush" not in json.dumps(told)
    monkeypatch.setenv("FOLDBACK_SERVER__PORT", "seven")
    refused = foldback("config", "check")
    assert refused.exit_code == 2
    assert "server.port='seven'" in refused.stderr


def test_config_check_reads_the_rules(foldback: Foldback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    monkeypatch.setenv("FOLDBACK_TRAINER__RULES_FILE", str(rules))
    rules.write_text("rules: [{name: no_echo, kind: echo}]")
    accepted = foldback("config", "check")
    assert accepted.exit_code == 0
    assert "rules accepted: 1" in accepted.output
    assert "no_echo" in accepted.output
    rules.write_text("rules: [{name: no_echo, kind: echo, wrods: 3}]")
    refused = foldback("config", "check")
    assert refused.exit_code == 2
    assert "rule 1 (no_echo), wrods: no such field" in refused.stderr


def test_help_teaches_and_loads_nothing_heavy() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "console.cli", "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "foldback up" in done.stdout
    # Processor time, which other work on the machine does not stretch much: 0.17 s when it was written.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    names = subprocess.run(
        [sys.executable, "-c", "import sys, console.cli; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"grpc", "matplotlib", "pydantic", "torch"} & set(names.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["dlq", "replay"], "give references, or --reason"),
        (["audit", "--since", "yesterday"], "'yesterday' is no time"),
        (["serve"], "server.port='seven'"),
        (["rank", "tea?", "-n", "1"], "-n"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_refused_ends_with_2(arguments: list[str], refused: str) -> None:
    """Whichever package carries the command out."""
    environment = {**os.environ, **({"FOLDBACK_SERVER__PORT": "seven"} if arguments == ["serve"] else {})}
    command = [sys.executable, "-m", "console.cli", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert refused in done.stderr
    assert "Traceback" not in done.stderr
