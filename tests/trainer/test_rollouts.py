"""The client of RolloutService over a real connection, with a server that can be away."""

import socket
import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from feedback.judgement import Prompt
from foldback.v1 import chat_pb2, rollout_pb2, rollout_pb2_grpc
from settings.ports import free_port
from settings.trainer import TrainerSettings
from trainer.rollouts import ServedRollouts, Stopped
from trainer.tokens import Rollout

PROMPTS = [
    Prompt("c1", (("system", "Be kind."), ("user", "Hello?")), (1, 2), 0.0),
    Prompt("c2", (("user", "Why?"),), (3,), 0.0),
]
CANARY = "p000003-cccccccc"


class Fleet(rollout_pb2_grpc.RolloutServiceServicer):
    """Answers with what it was asked, last prompt first, after `failures` refusals."""

    def __init__(self, *failures: grpc.StatusCode) -> None:
        self.failures = list(failures)
        self.requests: list[rollout_pb2.GenerateRolloutsRequest] = []

    def GenerateRollouts(  # noqa: N802
        self, request: rollout_pb2.GenerateRolloutsRequest, context: grpc.ServicerContext
    ) -> Iterator[rollout_pb2.GenerateRolloutsResponse]:
        self.requests.append(request)
        for index in reversed(range(len(request.prompts))):
            for sample in range(request.samples_per_prompt):
                yield rollout_pb2.GenerateRolloutsResponse(rollout=rollout(index, tokens=sample))
                if self.failures:
                    context.abort(self.failures.pop(0), "in the middle of the stream")


def rollout(prompt_index: int, *, tokens: int) -> rollout_pb2.Rollout:
    return rollout_pb2.Rollout(
        prompt_index=prompt_index,
        prompt_token_ids=[7, 8],
        token_ids=range(tokens),
        logprobs=[-0.5] * tokens,
        text="text",
        finish_reason=chat_pb2.FINISH_REASON_STOP if tokens == 1 else chat_pb2.FINISH_REASON_LENGTH,
        policy_spans=[
            chat_pb2.PolicySpan(policy_version="p000001-aaaaaaaa", start=0, end=min(1, tokens)),
            chat_pb2.PolicySpan(policy_version="p000002-bbbbbbbb", start=1, end=tokens),
        ],
        temperature=0.8,
    )


def serve(fleet: Fleet, address: str = "127.0.0.1:0") -> tuple[grpc.Server, str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    rollout_pb2_grpc.add_RolloutServiceServicer_to_server(fleet, server)
    port = server.add_insecure_port(address)
    server.start()
    return server, f"127.0.0.1:{port}"


def client(address: str, stop: threading.Event) -> ServedRollouts:
    return ServedRollouts(TrainerSettings(server_admin_address=address, samples_per_prompt=3, temperature=0.8), stop)


def sampled(fleet: Fleet) -> list[Rollout]:
    """What the client makes of `fleet`, which is up for as long."""
    server, address = serve(fleet)
    try:
        return client(address, threading.Event()).sample(PROMPTS, seed=1, version=CANARY)
    finally:
        server.stop(0)


def test_rollouts_are_taken_as_served_in_the_order_of_the_prompts() -> None:
    fleet = Fleet()
    rollouts = sampled(fleet)
    # Of three samples a prompt, of 0, 1 and 2 tokens, the empty one has nothing to learn from.
    assert [(r.group, r.sample.response_ids) for r in rollouts] == [(0, (0,)), (0, (0, 1)), (1, (0,)), (1, (0, 1))]
    longest = rollouts[1]
    assert longest.sample.prompt_ids == (7, 8)
    assert longest.behaviour_logprobs == (-0.5, -0.5)
    assert longest.policy_version == ("p000001-aaaaaaaa", "p000002-bbbbbbbb")
    assert longest.temperature == pytest.approx(0.8)
    assert [r.finish_reason for r in rollouts[:2]] == ["stop", "length"]

    (request,) = fleet.requests
    assert [(m.role, m.content) for m in request.prompts[0].messages] == [
        (chat_pb2.ROLE_SYSTEM, "Be kind."),
        (chat_pb2.ROLE_USER, "Hello?"),
    ]
    assert (request.sampling.top_p, request.sampling.top_k) == (1.0, 0)
    assert request.sampling.temperature == pytest.approx(0.8)
    assert request.policy_version == CANARY


def test_a_version_that_is_just_being_taken_up_is_waited_for() -> None:
    fleet = Fleet(grpc.StatusCode.FAILED_PRECONDITION)
    assert len(sampled(fleet)) == 4
    assert [request.policy_version for request in fleet.requests] == [CANARY, CANARY]


def test_a_replica_that_serves_another_version_gives_what_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.rollouts._TAKE_UP_S", 0.0)
    fleet = Fleet(grpc.StatusCode.FAILED_PRECONDITION)
    assert len(sampled(fleet)) == 4
    assert [request.policy_version for request in fleet.requests] == [CANARY, ""]


@pytest.mark.slow
def test_a_stream_that_breaks_is_asked_for_again_as_a_whole() -> None:
    fleet = Fleet(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert len(sampled(fleet)) == 4
    assert len(fleet.requests) == 3


@pytest.mark.slow
def test_a_server_that_comes_later_is_waited_for() -> None:
    address = f"127.0.0.1:{free_port()}"
    started: list[grpc.Server] = []
    timer = threading.Timer(0.3, lambda: started.append(serve(Fleet(), address)[0]))
    timer.start()
    try:
        assert len(client(address, threading.Event()).sample(PROMPTS, seed=1, version=CANARY)) == 4
    finally:
        timer.join()
        started[0].stop(0)


def test_a_mistake_of_ours_is_not_tried_again() -> None:
    fleet = Fleet(grpc.StatusCode.INVALID_ARGUMENT)
    with pytest.raises(grpc.RpcError) as error:
        sampled(fleet)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(fleet.requests) == 1


def test_waiting_ends_when_the_trainer_stops() -> None:
    stop = threading.Event()
    with socket.socket() as unanswered:
        unanswered.bind(("127.0.0.1", 0))
        source = client(f"127.0.0.1:{unanswered.getsockname()[1]}", stop)
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(Stopped):
            source.sample(PROMPTS, seed=1, version=CANARY)
