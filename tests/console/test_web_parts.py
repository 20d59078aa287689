"""What stands behind the web page: placing answers, history, the chart's data, who may use it."""

from collections.abc import Sequence

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from console.ranking import parse_ranking
from console.web.access import Access
from console.web.answers import grow
from console.web.history import History
from console.web.placing import Placing
from console.web.timeline import timeline
from foldback.v1 import chat_pb2, policy_pb2
from settings.console import ConsoleSettings
from tests.console.fake_server import FakeFoldback, echo


@given(st.permutations(range(4)), st.lists(st.booleans(), min_size=4, max_size=4))
def test_answers_placed_one_by_one_are_a_ranking(order: Sequence[int], ties: Sequence[bool]) -> None:
    placing = Placing(4)
    for answer, tie in zip(order, ties, strict=True):
        assert not placing.complete
        placing.tie_next = tie
        placing.place(answer)
        placing.place(answer)
    assert placing.complete
    assert [answer for tier in placing.tiers for answer in tier] == list(order)
    assert parse_ranking(str(placing), 4) is not None
    for answer in reversed(order):
        placing.undo()
        assert placing.place_of(answer) == 0
    assert placing.tiers == []


@given(st.lists(st.integers(0, 3), max_size=200), st.integers(4, 30))
def test_history_is_bounded_and_keeps_its_ends(values: list[int], limit: int) -> None:
    history = History(limit)
    for time, value in enumerate(values):
        history.add(time, {"kl": value})
    kept = history.of("kl")
    assert len(kept) <= limit
    assert kept == sorted(kept)
    assert all(values[int(time)] == value for time, value in kept)
    if values:
        assert (kept[0], kept[-1]) == ((0, values[0]), (len(values) - 1, values[-1]))


def policy(version: str, seconds: int, win_rate: float, state: "policy_pb2.PolicyState.ValueType") -> policy_pb2.Policy:
    made = policy_pb2.Policy(version=version, state=state, figures={"gate_win_rate": win_rate, "gate_kl_nats": 2.0})
    made.create_time.FromSeconds(seconds)
    return made


def test_the_chart_shows_versions_in_order_of_time_and_marks_refused_ones_and_swaps() -> None:
    history = History()
    history.add(10, {"reward_mean_rollouts": 0.123456, "ppo_kl_nats": 1.0})
    policies = [
        policy("p000002-b", 30, 0.4, policy_pb2.POLICY_STATE_REJECTED),
        policy("p000001-a", 20, 0.7, policy_pb2.POLICY_STATE_ACTIVE),
    ]
    options = timeline(history, policies, [(1, "p000000-base"), (21.5, "p000001-a")])
    series = {one["name"]: one for one in options["series"] if one["name"] != "Swaps"}
    assert series["Reward of rollouts"]["data"] == [[10_000, 0.1235]]
    first, second = series["Win rate"]["data"]
    assert (first["name"], first["value"], second["value"]) == ("p1", [20_000, 0.7], [30_000, 0.4])
    assert first["itemStyle"] != second["itemStyle"]
    swaps = [one["markLine"]["data"] for one in options["series"] if one["name"] == "Swaps"]
    assert [[mark["xAxis"] for mark in marks if "xAxis" in mark] for marks in swaps] == [[21_500]] * 3
    assert swaps[0][0]["label"]["formatter"] == "p1"
    assert {(axis["min"], axis["max"]) for axis in options["xAxis"]} == {(10_000, 30_000)}, "one time axis for all"


def test_hours_without_news_take_no_room() -> None:
    history = History()
    for time in (10, 40, 5000, 9000):
        history.add(time, {"ppo_kl_nats": 1.0 if time == 10 else 2.0})
    options = timeline(history, [policy("p000001-a", 20, 0.7, policy_pb2.POLICY_STATE_ACTIVE)], [])
    assert {(axis["min"], axis["max"]) for axis in options["xAxis"]} == {(10_000, 40_000)}


async def test_answers_grow_in_display_order() -> None:
    async with FakeFoldback() as fake:
        from console.client import Client

        async with Client(fake.chat_address, fake.admin_address) as client:
            request = chat_pb2.CreateChatRequest(
                messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content="tea?")], candidate_count=3
            )
            lengths = []
            async for response in grow(client, request):
                lengths.append(sum(len(answer.text) for answer in response.answers))
        [served] = fake.served.values()
        assert lengths == sorted(lengths)
        assert [answer.text for answer in response.answers] == [echo("p000000-base0000", "tea?", i)
                                                                for i in served.display_order]  # fmt: skip
        assert [answer.candidate_id for answer in response.answers] == [
            served.candidates[index].candidate_id for index in served.display_order
        ]
        assert all(answer.finished and not answer.cut for answer in response.answers)


TOKEN = "a long enough secret"


def browser(token: str, host: str = "127.0.0.1:8080") -> httpx.AsyncClient:
    page = Starlette(routes=[Route("/", lambda _: PlainTextResponse("the page"))])
    guarded = Access(page, token=token, names={"127.0.0.1", "localhost"})
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=guarded), base_url=f"http://{host}")


async def test_without_a_token_this_machine_alone_is_served() -> None:
    async with browser("") as here, browser("", "evil.example:8080") as rebound:
        assert (await here.get("/")).text == "the page"
        assert (await rebound.get("/")).status_code == 403
        assert (await here.get("/", headers={"Origin": "http://127.0.0.1:8080"})).status_code == 200
        for origin in ("http://evil.example", "http://127.0.0.1:9999", "null"):
            assert (await here.get("/", headers={"Origin": origin})).status_code == 403


async def test_the_token_is_asked_for_once() -> None:
    async with browser(TOKEN, "chat.example") as visitor:
        asked = await visitor.get("/")
        assert (asked.status_code, "Access token" in asked.text) == (401, True)
        wrong = await visitor.post("/login", data={"token": "guess"})
        assert (wrong.status_code, "not the token" in wrong.text, "set-cookie" in wrong.headers) == (401, True, False)
        assert (await visitor.post("/login", data={"token": "x" * 9999})).status_code == 413
        right = await visitor.post("/login", data={"token": TOKEN})
        assert right.status_code == 303
        cookie = right.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert TOKEN not in cookie
        assert (await visitor.get("/")).text == "the page"


async def test_a_forged_cookie_does_not_open_it() -> None:
    async with browser(TOKEN) as visitor:
        for forged in (TOKEN, "0" * 64, ""):
            assert (await visitor.get("/", headers={"Cookie": f"foldback_web={forged}"})).status_code == 401


@pytest.mark.parametrize(("token", "origin", "code"), [(TOKEN, "http://h", 1008), ("", "http://evil", 1008)])
async def test_a_connection_that_may_not_is_closed(token: str, origin: str, code: int) -> None:
    sent: list[dict[str, object]] = []

    async def unreachable(*_: object) -> None:
        raise AssertionError("the page was reached")

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [(b"host", b"h"), (b"origin", origin.encode())]
    await Access(unreachable, token, {"h"})({"type": "websocket", "headers": headers}, unreachable, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": code}]


def test_other_machines_need_a_token() -> None:
    with pytest.raises(ValidationError, match=r"web_host=.0\.0\.0\.0.*FOLDBACK_CONSOLE__WEB_TOKEN"):
        ConsoleSettings(web_host="0.0.0.0")
    assert ConsoleSettings.model_validate({"web_host": "0.0.0.0", "web_token": "secret"}).web_port == 8080
