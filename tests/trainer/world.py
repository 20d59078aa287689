"""A small world for the loop: a fleet of one tiny model, users with a taste, a real store and a real registry."""

import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from feedback.judgement import Prompt
from feedback.record import Record
from feedback.store import PreferenceStore
from feedback.topics import FEEDBACK, RESPONSES
from foldback.v1 import chat_pb2, events_pb2, feedback_pb2
from registry import PolicyState, Registry
from settings.canary import CanarySettings
from settings.gate import GateSettings
from settings.ppo import LoraSettings, PpoSettings
from settings.rules import Constitution
from settings.trainer import TrainerSettings
from trainer import prompts
from trainer.backbone import Backbone
from trainer.learner import Learner
from trainer.loop import Trainer
from trainer.own_rollouts import OwnRollouts
from trainer.tokens import Rollout, Sample

SETTINGS = TrainerSettings(
    torch_threads=1,
    temperature=1.0,
    dtype="float32",
    judgements_to_start=40,
    judgements_per_update=20,
    iterations_per_judgement=0.25,
    calibration_samples=8,
    prompts_per_iteration=4,
    samples_per_prompt=4,
    max_new_tokens=8,
    publish_every=2,
    rollouts_from="fleet",
    canary_prompts=2,
    lora=LoraSettings(rank=4),
    # With less of λ steps of this learning rate run far past what `lead_back` is tested on.
    ppo=PpoSettings(learning_rate=2e-2, warmup_steps=0, max_kl_nats=1e3, gae_lambda=0.95),
    gate=GateSettings(
        prompts=8,
        max_new_tokens=8,
        min_distinct_2=0.0,
        min_entropy_nats=0.0,
        max_kl_nats=1e3,
        max_length_ratio=8,
        min_reference_length_ratio=0.0,
        max_reference_length_ratio=8,
        min_reference_distinct_2=0.0,
        max_phrase_growth=1.0,
        max_base_perplexity=1e9,
    ),
    canary=CanarySettings(enabled=False),
)
OPENINGS = ("tell me about", "what is", "how do you like", "why is it", "please say yes to", "is it good", "no to")
SUBJECTS = ("you", "the maybe", "in that way", "your good", "of this", "a bad we", "it", "they")


class Fleet:
    """Samples from the canary, or else the active version, as one replica does. A RolloutSource that repeats itself."""

    beside_training = True

    def __init__(self, model: Path, registry: Registry, settings: TrainerSettings) -> None:
        self.backbone = Backbone(model, settings.lora, dtype=torch.float32, seed=settings.seed)
        self._registry = registry
        self._settings = settings
        self._base_policy = [parameter.detach().clone() for parameter in self.backbone.parameters()]
        self._version: str | None = None
        self._lock = threading.RLock()
        """The trainer draws rollouts on a thread of its own."""

    @property
    def serving(self) -> str:
        """The version that answers now."""
        with self._lock:
            self._swap()
            assert self._version
            return self._version

    def sample(self, prompts_: Sequence[Prompt], *, seed: int, version: str = "") -> list[Rollout]:
        with self._lock:
            return self._sample(prompts_, seed, version)

    def _sample(self, prompts_: Sequence[Prompt], seed: int, version: str) -> list[Rollout]:
        assert self.serving == version or not version
        settings, tokenizer = self._settings, self.backbone.tokenizer
        ids = [prompts.token_ids(tokenizer, prompt) for prompt in prompts_]
        groups = [index for index in range(len(ids)) for _ in range(settings.samples_per_prompt)]
        samples = self.backbone.generate(
            [ids[index] for index in groups],
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seed=seed,
        )
        with torch.no_grad():
            logprobs_BT, _, _ = self.backbone.policy_logprobs(samples, settings.temperature)
        return [
            self._rollout(sample, logprobs_T, group)
            for sample, logprobs_T, group in zip(samples, logprobs_BT, groups, strict=True)
        ]

    def _rollout(self, sample: Sample, logprobs_T: torch.Tensor, group: int) -> Rollout:
        response = sample.response_ids
        assert self._version
        return Rollout(
            sample=sample,
            text=str(self.backbone.tokenizer.decode(response)),
            behaviour_logprobs=tuple(logprobs_T[: len(response)].tolist()),
            finish_reason="stop" if response[-1] in self.backbone.eos_token_ids else "length",
            policy_version=(self._version,) * len(response),
            temperature=self._settings.temperature,
            group=group,
        )

    def _swap(self) -> None:
        state = self._registry.state()
        served = state.canary or state.active
        if not served or served == self._version:
            return
        if self._registry.manifest(served).parent:
            self.backbone.load_adapter(self._registry.fetch(served, Path("unused")) / "adapter")
        else:
            with torch.no_grad():
                for parameter, base in zip(self.backbone.parameters(), self._base_policy, strict=True):
                    parameter.copy_(base)
        self._version = served


class World:
    """Everything around one trainer, below one directory."""

    def __init__(self, directory: Path, model: Path, settings: TrainerSettings = SETTINGS) -> None:
        torch.set_num_threads(settings.torch_threads)
        self.directory, self.model, self.settings = directory, model, settings
        self.registry = Registry((directory / "registry").as_uri())
        self.store = PreferenceStore(directory / "preferences.sqlite")
        self.base = self.registry.publish_base("tiny", "0" * 64).version
        if self.registry.state().active is None:
            self.registry.transition(self.base, PolicyState.ACTIVE, reason="the base", actor="server")
        self.fleet = Fleet(model, self.registry, settings)
        self._asked = self.store.funnel()["responses"]

    def trainer(self, settings: TrainerSettings | None = None, constitution: Constitution | None = None) -> Trainer:
        """A trainer as it is at the start of a process."""
        settings = settings or self.settings
        learner = Learner.create(self.model, settings, constitution)
        learner.backbone.stored = torch.float32  # what is published is, bit for bit, what was trained
        rollouts = self.fleet if settings.rollouts_from == "fleet" else OwnRollouts(learner.backbone, settings)
        return Trainer(
            settings, learner, self.store, self.registry, rollouts, self.directory / "trainer", keep_versions=99
        )

    def users_rank(self, conversations: int, *, upside_down: bool = False) -> None:
        """Each asks something and orders four answers by taste, or by its opposite."""
        for _ in range(conversations):
            name, question = self._ask()
            answers = self.fleet.sample([Prompt(name, (("user", question),), (), 0.0)], seed=self._asked)
            best_first = sorted(range(len(answers)), key=lambda i: taste(answers[i].sample), reverse=not upside_down)
            tiers = [feedback_pb2.Tier(candidate_ids=[f"{name}-{index}"]) for index in best_first]
            self._write(name, question, answers, "u1", ranking=feedback_pb2.Ranking(tiers=tiers))

    def users_thumb(self, likes: Sequence[bool], raters: int = 8) -> None:
        """One after the other asks something, and likes the answer or does not."""
        for index, liked in enumerate(likes):
            name, question = self._ask()
            answers = self.fleet.sample([Prompt(name, (("user", question),), (), 0.0)], seed=self._asked)[:1]
            thumbs = feedback_pb2.THUMBS_UP if liked else feedback_pb2.THUMBS_DOWN
            self._write(name, question, answers, f"u{index % raters}", thumbs=thumbs)

    def _ask(self) -> tuple[str, str]:
        """(conversation id, question)"""
        self._asked += 1
        chosen = random.Random(self._asked)
        return f"c{self._asked}", f"{chosen.choice(OPENINGS)} {chosen.choice(SUBJECTS)} {chosen.choice(SUBJECTS)}?"

    def _write(self, name: str, question: str, answers: Sequence[Rollout], rater: str, **judgement: Any) -> None:
        version = self.fleet.serving
        candidates = [f"{name}-{index}" for index in range(len(answers))]
        response = events_pb2.ResponseRecorded(
            tenant="t",
            response_id=f"r-{name}",
            conversation_id=name,
            rater_id=rater,
            policy_version=version,
            messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=question)],
            prompt_token_ids=answers[0].sample.prompt_ids,
            candidates=[
                events_pb2.CandidateRecord(
                    candidate_id=candidate, text=answer.text, token_ids=answer.sample.response_ids
                )
                for candidate, answer in zip(candidates, answers, strict=True)
            ],
            training_consent=True,
        )
        response.serve_time.FromSeconds(1_700_000_000 + self._asked)
        claims = events_pb2.TokenClaims(
            tenant="t",
            conversation_id=name,
            response_id=response.response_id,
            candidate_ids=candidates,
            policy_version=version,
        )
        feedback = events_pb2.FeedbackRecorded(
            feedback_id=f"f-{name}",
            tenant="t",
            feedback=feedback_pb2.Feedback(rater_id=rater, source=feedback_pb2.FEEDBACK_SOURCE_END_USER, **judgement),
            claims=[claims],
        )
        feedback.receive_time.FromSeconds(1_700_000_000 + self._asked)
        key, offset = name.encode(), self._asked
        records = [
            Record(RESPONSES, 0, offset, key, response.SerializeToString(), ""),
            Record(FEEDBACK, 0, offset, key, feedback.SerializeToString(), ""),
        ]
        self.store.ingest(records, "cluster", {(RESPONSES, 0): offset + 1, (FEEDBACK, 0): offset + 1})


def taste(sample: Sample) -> float:
    """What these users like: tokens of the vocabulary's upper half."""
    return sum(token >= 167 for token in sample.response_ids) / len(sample.response_ids)
