"""Simulated users without a server between: what they say of answers, as the preference store would hold it."""

from collections.abc import Iterator, Sequence
from random import Random

from console import simulate
from feedback.judgement import Answer, Judgement
from foldback.v1.feedback_pb2 import THUMBS_UP, Feedback
from trainer.tokens import Sample

Shown = tuple[str, list[Sample], list[str]]
"""A question, its answers, and their texts."""


class Users:
    """Judge questions' answers one after the other; the same seed, the same judgements."""

    def __init__(self, crowd: simulate.Crowd) -> None:
        self._crowd = crowd
        self._random = Random(crowd.seed)
        self._asked = 0

    def judge(self, version: str, shown: Sequence[Shown]) -> Iterator[Judgement]:
        """What users say of answers by `version`; of some, nothing."""
        for question, samples, texts in shown:
            self._asked += 1
            ids = [f"{self._asked}-{index}" for index in range(len(samples))]
            rater = f"rater-{self._asked % self._crowd.users}"
            read = simulate.Answers(str(self._asked), version, ids, texts)
            said = simulate.judge(self._crowd, read, rater, self._random)
            if said is not None:
                answers = [Answer(*each) for each in zip(ids, texts, (s.response_ids for s in samples), strict=True)]
                yield self._judgement(said.feedback, question, answers, samples[0].prompt_ids, version)

    def _judgement(
        self, said: Feedback, question: str, answers: list[Answer], prompt_ids: tuple[int, ...], version: str
    ) -> Judgement:
        thumbs = said.HasField("thumbs")
        named = [answer for answer in answers if not thumbs or answer.candidate_id == said.candidate_id]
        place = {answer.candidate_id: index for index, answer in enumerate(named)}
        return Judgement(
            sequence=self._asked,
            feedback_id=f"feedback-{self._asked}",
            tenant="rehearsal",
            rater_id=said.rater_id,
            source=said.source,
            kind="thumbs" if thumbs else "ranking",
            conversation_id=f"conversation-{self._asked}",
            response_id=f"response-{self._asked}",
            policy_version=version,
            messages=(("user", question),),
            prompt_token_ids=prompt_ids,
            answers=tuple(named),
            tiers=tuple(tuple(place[each] for each in tier.candidate_ids) for tier in said.ranking.tiers),
            rejected_all=False,
            score=float(said.thumbs == THUMBS_UP) if thumbs else None,
            text="",
            receive_time=0.0,
        )
