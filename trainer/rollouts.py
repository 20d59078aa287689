"""Rollouts: answers to recent prompts, sampled from the serving fleet at low priority."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

import grpc

from feedback.judgement import Prompt
from foldback.credentials import call_metadata, channel_credentials
from foldback.v1 import chat_pb2, rollout_pb2, rollout_pb2_grpc
from settings.trainer import TrainerSettings
from trainer.tokens import Rollout, Sample

log = logging.getLogger("trainer")

_AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)
"""The server starts, drains, is busy or went away: worth another try. Anything else is a mistake of ours."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
_TAKE_UP_S = 8.0
"""For a server to take up a version that was published just now, before others' answers will do."""

_ROLES = {"system": chat_pb2.ROLE_SYSTEM, "user": chat_pb2.ROLE_USER, "assistant": chat_pb2.ROLE_ASSISTANT}


class Stopped(Exception):
    """The trainer was asked to stop while it waited."""


class RolloutSource(Protocol):
    @property
    def beside_training(self) -> bool:
        """Whether it may draw on another thread while the policy is trained."""
        ...

    def sample(self, prompts: Sequence[Prompt], *, seed: int, version: str) -> list[Rollout]:
        """Answers to `prompts`, several each, in the order of the prompts; by `version` where that is served.

        `seed` makes the draw repeatable where the source can be; a fleet of servers cannot.

        Raises:
            Stopped: the trainer is stopping.
        """
        ...


class ServedRollouts:
    """RolloutSource over RolloutService. Tries again, ever more slowly, while the server is away."""

    beside_training = True

    def __init__(self, settings: TrainerSettings, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        access = settings.server_access
        secure = channel_credentials(access.tls_ca, access.tls_certificate, access.tls_key)
        address, options = settings.server_admin_address, [("grpc.max_receive_message_length", 64 * 2**20)]
        self._channel = (
            grpc.secure_channel(address, secure, options) if secure else grpc.insecure_channel(address, options)
        )
        self._metadata = call_metadata(access.api_key.get_secret_value())
        self._stub = rollout_pb2_grpc.RolloutServiceStub(self._channel)

    def sample(self, prompts: Sequence[Prompt], *, seed: int, version: str) -> list[Rollout]:
        request = rollout_pb2.GenerateRolloutsRequest(
            prompts=[_to_proto(prompt) for prompt in prompts],
            samples_per_prompt=self._settings.samples_per_prompt,
            # Nothing but temperature may bend the distribution: the ratios of PPO are exact for no other.
            sampling=chat_pb2.Sampling(
                temperature=self._settings.temperature,
                top_p=1.0,
                top_k=0,
                max_tokens=self._settings.max_new_tokens,
            ),
            policy_version=version,
        )
        pause, patience = _FIRST_PAUSE_S, time.monotonic() + _TAKE_UP_S
        while not self._stop.is_set():
            try:
                call = self._stub.GenerateRollouts(
                    request, timeout=self._settings.rollout_timeout_s, metadata=self._metadata
                )
                return in_order([from_proto(response.rollout) for response in call])
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.FAILED_PRECONDITION and request.policy_version:
                    if time.monotonic() < patience:
                        self._stop.wait(_FIRST_PAUSE_S)
                        continue
                    # A replica that serves another version: PPO weighs what it samples, unless that is too old.
                    log.info("rollouts: %s; taking what is served", error.details())
                    request.policy_version = ""
                    continue
                if error.code() not in _AWAY:
                    raise
                log.info(
                    "rollouts: %s answers %s (%s); next try in %.1f s",
                    self._settings.server_admin_address,
                    error.code().name,
                    error.details(),
                    pause,
                )
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        raise Stopped

    def close(self) -> None:
        self._channel.close()


def in_order(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """By prompt, whatever order they were finished in; a rollout without a single token is left out."""
    return sorted((r for r in rollouts if r.sample.response_ids), key=lambda rollout: rollout.group)


def from_proto(rollout: rollout_pb2.Rollout) -> Rollout:
    """As served: token ids, logprobs and versions are not recomputed."""
    versions = [span.policy_version for span in rollout.policy_spans for _ in range(span.end - span.start)]
    return Rollout(
        sample=Sample(tuple(rollout.prompt_token_ids), tuple(rollout.token_ids)),
        text=rollout.text,
        behaviour_logprobs=tuple(rollout.logprobs),
        finish_reason="stop" if rollout.finish_reason == chat_pb2.FINISH_REASON_STOP else "length",
        policy_version=tuple(versions),
        temperature=rollout.temperature,
        group=rollout.prompt_index,
    )


def _to_proto(prompt: Prompt) -> rollout_pb2.RolloutPrompt:
    return rollout_pb2.RolloutPrompt(
        messages=[chat_pb2.Message(role=_ROLES[role], content=content) for role, content in prompt.messages]
    )
