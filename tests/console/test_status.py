"""`foldback status`: what answers is shown, what does not is said."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from console.scrape import by_label, parse, total
from tests.console.conftest import Foldback
from tests.console.fake_server import BASE, FakeFoldback

TRAINER = """\
# HELP foldback_ppo_kl_nats Mean KL.
# TYPE foldback_ppo_kl_nats gauge
foldback_ppo_kl_nats 3.25
# TYPE foldback_ppo_entropy_nats gauge
foldback_ppo_entropy_nats NaN
# TYPE foldback_ppo_iterations_total counter
foldback_ppo_iterations_total 12.0
# TYPE foldback_reward_model_accuracy_ratio gauge
foldback_reward_model_accuracy_ratio{split="held_out"} 0.71
# TYPE foldback_feedback_funnel gauge
foldback_feedback_funnel{stage="responses"} 40.0
foldback_feedback_funnel{stage="joined"} 31.0
foldback_feedback_funnel{stage="learned"} 24.0
# TYPE foldback_canary_on_trial gauge
foldback_canary_on_trial 1.0
# TYPE foldback_canary_ratings gauge
foldback_canary_ratings{arm="canary"} 12.0
foldback_canary_ratings{arm="control"} 0.0
# TYPE foldback_canary_rating_mean_ratio gauge
foldback_canary_rating_mean_ratio{arm="canary"} 0.75
# TYPE foldback_canary_evidence gauge
foldback_canary_evidence{direction="for"} 3.25
foldback_canary_evidence{direction="against"} 0.4
"""
SERVER = """\
# TYPE foldback_grpc_requests_total counter
foldback_grpc_requests_total{code="OK",method="ChatService/StreamChat"} 30.0
foldback_grpc_requests_total{code="OK",method="FeedbackService/SubmitFeedback"} 12.0
foldback_grpc_requests_total{code="UNAVAILABLE",method="ChatService/CreateChat"} 1.0
foldback_grpc_requests_total{code="OK",method="RolloutService/GenerateRollouts"} 9.0
foldback_grpc_requests_total{code="FAILED_PRECONDITION",method="RolloutService/GenerateRollouts"} 5.0
"""


@contextmanager
def serving(text: str) -> Iterator[str]:
    """The address where `text` is served."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def trainer_metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with serving(TRAINER) as url:
        monkeypatch.setenv("FOLDBACK_CONSOLE__TRAINER_METRICS_URL", url)
        yield


@pytest.mark.usefixtures("fake_server")
def test_calls_of_the_trainer_are_not_counted_among_those_of_applications(
    foldback: Foldback, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(SERVER) as url:
        monkeypatch.setenv("FOLDBACK_CONSOLE__SERVER_METRICS_URL", url)
        assert json.loads(foldback("status", "--json").output)["requests"] == {"OK": 42, "UNAVAILABLE": 1}
        assert "calls: 42 OK, 1 UNAVAILABLE" in " ".join(foldback("status").output.split())


@pytest.mark.usefixtures("fake_server", "trainer_metrics")
def test_status_shows_everything(foldback: Foldback) -> None:
    result = foldback("status")
    assert result.exit_code == 0
    for shown in (
        BASE,
        "serving",
        "✓ running ",
        "3.2 nats",
        "71% of held-out",
        "40 responses → 31 joined → 24 learned by an active version",
    ):
        assert shown in result.output


@pytest.mark.usefixtures("fake_server")
@pytest.mark.parametrize(("count", "told"), [(9, "running, waits for 9 more judgements"), (1, "1 more judgement")])
def test_status_says_what_the_trainer_waits_for(
    foldback: Foldback, monkeypatch: pytest.MonkeyPatch, count: int, told: str
) -> None:
    with serving(f"foldback_judgements_awaited {count}.0\n{TRAINER}") as url:
        monkeypatch.setenv("FOLDBACK_CONSOLE__TRAINER_METRICS_URL", url)
        assert told in foldback("status").output


@pytest.mark.usefixtures("fake_server", "trainer_metrics")
def test_a_canary_is_shown_with_what_users_say_of_it(foldback: Foldback, fake_server: FakeFoldback) -> None:
    assert "canary" not in foldback("status").output
    fake_server.canary = "p000007-c5c0b75c"
    told = " ".join(foldback("status").output.split())
    assert (
        "p000007-c5c0b75c rated good: 75% of 12; the active version: none yet; evidence 3.2 for it, 0.4 against" in told
    )


@pytest.mark.usefixtures("fake_server", "trainer_metrics")
def test_status_as_json(foldback: Foldback) -> None:
    report = json.loads(foldback("status", "--json").output)
    assert report["healthy"]
    assert report["serving_version"] == BASE
    assert report["funnel"] == {"responses": 40, "joined": 31, "learned": 24}
    figures = {name: value for name, value in report["trainer"].items() if not name.startswith("trial_")}
    assert figures == {"ppo_iterations": 12, "ppo_kl_nats": 3.25, "reward_accuracy_held_out": 0.71}


def test_status_without_a_trainer_says_how_to_start_one(foldback: Foldback, fake_server: FakeFoldback) -> None:
    result = foldback("status")
    assert result.exit_code == 0
    assert "start it with 'foldback train'" in " ".join(result.output.split())


def test_status_without_a_server_exits_with_1(foldback: Foldback, monkeypatch: pytest.MonkeyPatch) -> None:
    for field in ("ADDRESS", "ADMIN_ADDRESS"):
        monkeypatch.setenv(f"FOLDBACK_CONSOLE__{field}", "127.0.0.1:9")
    result = foldback("status")
    assert result.exit_code == 1
    assert "foldback up" in result.output


def test_samples_are_summed_over_other_labels() -> None:
    samples = parse('# TYPE x counter\nx_total{a="1",b="p"} 2\nx_total{a="1",b="q"} 3\nx_total{a="2",b="p"} 4\n')
    assert by_label(samples, "x_total", "a") == {"1": 5, "2": 4}
    assert total(samples, "x_total") == 9
    assert total(samples, "y") is None
