"""What the trainer learns from simulated users, rehearsed: no server, no broker, a fifth of the time.

There is no gate either, but a policy that has drifted too far is led back as the gate would lead it.

Reward model, rules and PPO are the trainer's own, fed as bench/learning.py feeds them: users judge answers of every
version, the reward model is updated, and some iterations of PPO make the next. So settings can be compared, from the
same questions and users. Each arm is what is shipped with some settings of `trainer` changed: `ppo.gae_lambda=0.95`, or
several with commas between.
"""

import argparse
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from harness.processes import DEFAULT_MODEL, ROOT
from harness.rehearsal_users import Shown, Users
from harness.report import Report, Row, arguments

from console.measure import Measurement
from console.personas import PERSONAS, Persona
from console.personas.prompts import TRAINING
from console.simulate import Crowd
from feedback.judgement import Judgement, Prompt
from settings.rules import read_rules
from settings.trainer import TrainerSettings
from trainer.drift import lead_back, of_answers
from trainer.evaluation import Reference, evaluate, form_tokens, measure, perplexity_ratio
from trainer.improve import improve
from trainer.learner import Learner
from trainer.own_rollouts import OwnRollouts
from trainer.prompts import chat_ids
from trainer.sampling import Draw
from trainer.tokens import Sample

SHIPPED = "as shipped"
LEAST_DEVIATION = 0.1
"""Of utility: where the base's answers hardly differ, a deviation would be a trifle."""
USERS, JUDGED = 8, 48
"""Conversations that users judge between two versions."""


class Rehearsal:
    """One run: the policy, its users, and how it stands."""

    def __init__(self, persona: Persona, settings: TrainerSettings) -> None:
        self._persona, self._settings = persona, settings
        self._learner = Learner.create(DEFAULT_MODEL, settings, read_rules(ROOT / settings.rules_file))
        self._rollouts = OwnRollouts(self._learner.backbone, settings)
        self._users = Users(Crowd(persona, users=USERS, seed=settings.seed))
        self._random = random.Random(settings.seed)
        self._said: list[Judgement] = []
        self._iteration = 0

    def versions(self, count: int) -> Iterator[Row]:
        """How the base stands, and `count` versions after it."""
        learner, settings, backbone = self._learner, self._settings, self._learner.backbone
        probes = [self._ids(question) for question in TRAINING[:: len(TRAINING) // settings.gate.prompts]]
        answer_probes = partial(
            evaluate,
            backbone,
            probes,
            learner.pool,
            learner.rules,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seed=settings.seed,
        )
        reference = Reference(*answer_probes())
        form = form_tokens(backbone.tokenizer)
        forgotten = partial(perplexity_ratio, backbone, reference, settings.temperature)
        base, deviation, distinct_2 = 0.0, 1.0, 1.0
        for version in range(count + 1):
            drawn, shown = self._answers(version)
            texts = tuple(text for _, _, texts in shown for text in texts)
            served = Measurement(tuple(map(self._persona.utility, texts)), Counter([str(version)]), texts)
            if version == 0:
                base, deviation, distinct_2 = served.mean, max(served.std, LEAST_DEVIATION), served.distinct_2
                learner.reward.calibrate(learner.featuriser.features(reference.evaluation.samples))
            said = list(self._users.judge(str(version), shown))
            self._said += said
            known = learner.reward.update(learner.featuriser.examples(said))
            found, _ = measure(backbone, drawn, learner.pool, learner.rules, temperature=settings.temperature)
            yield {
                "version": version,
                "rise σ": (served.mean - base) / deviation,
                "reward": (found.rules.rewards + learner.reward.reward(found.features_PF)).mean().item(),
                "KL nats": found.kl_nats,
                "base perplexity": forgotten(),
                "distinct-2": served.distinct_2 / distinct_2,
                "judgements": len(self._said),
                "reward accuracy": known.accuracy,
                "example": shown[0][2][0][:60],
            }
            if learner.reward.ready and version < count:
                for _ in range(settings.publish_every):
                    self._learn()
                lead_back(backbone, forgotten, math.log, most=math.log(settings.gate.max_base_perplexity))
                lead_back(
                    backbone,
                    answer_probes,
                    lambda seen: of_answers(seen[0], reference.evaluation, settings.gate, form),
                    most=1.0,
                )

    def _answers(self, version: int) -> tuple[list[Draw], list[Shown]]:
        """What users see of a version: several answers a question."""
        settings, backbone = self._settings, self._learner.backbone
        asked = [self._random.choice(TRAINING) for _ in range(JUDGED)]
        drawn = backbone.draw(
            [self._ids(question) for question in asked for _ in range(settings.samples_per_prompt)],
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seed=settings.seed * 1_000_003 + version,
        )
        shown = [
            (question, samples, [self._text(sample) for sample in samples])
            for question, samples in zip(asked, batched(drawn, settings.samples_per_prompt), strict=True)
        ]
        return drawn, shown

    def _learn(self) -> None:
        """One iteration of PPO."""
        learner, settings = self._learner, self._settings
        self._iteration += 1
        questions = self._random.sample(TRAINING, settings.prompts_per_iteration)
        prompts = [Prompt(question, (("user", question),), (), 0.0) for question in questions]
        rollouts = self._rollouts.sample(prompts, seed=self._iteration, version="")
        improve(learner, settings, rollouts, judgements=self._said, seed=self._iteration)

    def _ids(self, question: str) -> tuple[int, ...]:
        return chat_ids(self._learner.backbone.tokenizer, (("user", question),))

    def _text(self, sample: Sample) -> str:
        return str(self._learner.backbone.tokenizer.decode(sample.response_ids, skip_special_tokens=True))


def batched(draws: Iterable[Draw], size: int) -> Iterator[list[Sample]]:
    """The samples in runs of `size`; itertools has it from Python 3.12 on."""
    rest = iter(draws)
    while run := [each.sample for each in islice(rest, size)]:
        yield run


def trainer_settings(arm: str, seed: int) -> TrainerSettings:
    """As shipped, but for `section.field=value,…`; refused as in a file of settings."""
    changed: dict[str, Any] = {"seed": seed}
    for change in arm.split(",") if arm != SHIPPED else ():
        path, _, value = change.partition("=")
        *sections, field = path.split(".")
        place = changed
        for section in sections:
            place = place.setdefault(section, {})
        place[field] = value
    return TrainerSettings.model_validate(changed)


def options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--personas", nargs="+", choices=PERSONAS, default=list(PERSONAS), metavar="NAME")
    parser.add_argument("--arms", nargs="+", default=[], metavar="SETTING=VALUE", help="beside what is shipped")
    parser.add_argument("--only-arms", action="store_true", help="not what is shipped")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N")
    parser.add_argument("--versions", type=int, default=6, metavar="N")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.personas, chosen.seeds, chosen.versions = chosen.personas[:1], chosen.seeds[:1], min(chosen.versions, 2)
    return chosen


def main() -> None:
    chosen = options()
    torch.set_num_threads(chosen.threads)
    arms = [*([] if chosen.only_arms else [SHIPPED]), *chosen.arms]
    rows: list[Row] = []
    for persona in chosen.personas:
        for seed in chosen.seeds:
            for arm in arms:
                for row in Rehearsal(PERSONAS[persona], trainer_settings(arm, seed)).versions(chosen.versions):
                    rows.append({"persona": persona, "arm": arm, "seed": seed, **row})
                    print(*(f"{v:.2f}" if isinstance(v, float) else repr(v) for v in rows[-1].values()), flush=True)
    said = Report("Learning rehearsed: a row a version, by answers drawn from it before it learned on", rows)
    said.finish(chosen)
    if chosen.plot:
        plot(rows, arms, chosen.plot)


def plot(rows: list[Row], arms: list[str], path: Path) -> None:
    """Rise along versions, and against the nats it cost; a line a run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True, dpi=150)
    runs = list(dict.fromkeys((row["persona"], row["arm"], row["seed"]) for row in rows))
    for axes, along in zip(panels, ("version", "KL nats"), strict=True):
        for run in runs:
            points = [row for row in rows if (row["persona"], row["arm"], row["seed"]) == run]
            colour = f"C{arms.index(str(run[1]))}"
            axes.plot([p[along] for p in points], [p["rise σ"] for p in points], ".-", color=colour, label=run[1])
        axes.set_xlabel(along)
    panels[0].set_ylabel("rise, σ")
    labels = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend(labels.values(), labels.keys(), loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
