"""A policy becomes a version: its files, its canary, and its way through the life cycle."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from registry import CanaryPrompt, Manifest, PolicyState, Registry
from trainer.backbone import Backbone
from trainer.tokens import Sample

ACTOR = "trainer"
ADAPTER, WEIGHTS, LEARNED = "adapter", "weights", "learned_feedback.txt"


def publish(
    registry: Registry,
    backbone: Backbone,
    *,
    parent: str,
    figures: dict[str, float],
    canary_samples: Sequence[Sample],
    feedback_ids: Iterable[str],
    scratch: Path,
) -> Manifest:
    """Write the backbone's present policy to the registry, in state `training`.

    Args:
        parent: the version it continues from.
        canary_samples: completions whose logprobs the manifest records.
        feedback_ids: the judgements that this version is the first to learn from.
        scratch: a folder for the draft.
    """
    ancestry = registry.manifest(parent)
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=scratch))
    try:
        backbone.save_adapter(draft / ADAPTER)
        (draft / ADAPTER / "README.md").unlink(missing_ok=True)  # PEFT's model card, a template without content
        backbone.save_merged(draft / WEIGHTS)
        (draft / LEARNED).write_text("".join(f"{feedback_id}\n" for feedback_id in feedback_ids))
        manifest = registry.publish(
            draft,
            step=next_step(registry),
            parent=parent,
            base=ancestry.base,
            base_digest=ancestry.base_digest,
            figures=figures,
            canary=canary(draft / WEIGHTS, canary_samples, backbone.dtype),
        )
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    registry.transition(manifest.version, PolicyState.TRAINING, reason="published", actor=ACTOR)
    return manifest


def next_step(registry: Registry) -> int:
    """The number in the next version's name `p000012-…`: one more than any version's so far."""
    return 1 + max((int(version[1:].split("-")[0]) for version in registry.state().states), default=0)


@torch.no_grad()
def canary(weights: Path, samples: Sequence[Sample], dtype: torch.dtype) -> list[CanaryPrompt]:
    """Logprobs at temperature 1 that whoever serves `weights` must find again, here computed in `dtype`.

    They come from the files themselves, loaded afresh: a merge that went wrong would not agree with the policy.
    """
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=dtype).eval()
    prompts = []
    for sample in samples:
        ids_1S = torch.tensor([sample.prompt_ids + sample.response_ids])
        logits_TV = model(input_ids=ids_1S).logits[0, len(sample.prompt_ids) - 1 : -1].float()
        response_T = torch.tensor(sample.response_ids)
        logprobs_T = logits_TV.log_softmax(-1).gather(-1, response_T[:, None])[:, 0]
        prompts.append(
            CanaryPrompt(
                prompt_token_ids=sample.prompt_ids,
                completion_token_ids=sample.response_ids,
                logprobs=tuple(logprobs_T.tolist()),
            )
        )
    return prompts


def promote(
    registry: Registry, version: str, figures: dict[str, float], *, on_trial: bool, expected_active: str
) -> None:
    """training → candidate → canary, or straight to active; then the version before retires in the same entry.

    Raises:
        ActiveChanged: `expected_active`, against which it passed the gate, is active no longer.
    """
    registry.transition(version, PolicyState.CANDIDATE, reason="trained", actor=ACTOR)
    registry.transition(
        version,
        PolicyState.CANARY if on_trial else PolicyState.ACTIVE,
        reason="passed the gate",
        actor=ACTOR,
        figures=figures,
        expected_active=expected_active,
    )


def reject(registry: Registry, version: str, reason: str, figures: dict[str, float]) -> None:
    registry.transition(version, PolicyState.REJECTED, reason=reason, actor=ACTOR, figures=figures)


def reject_unfinished(registry: Registry) -> list[str]:
    """Versions that a trainer published and did not live to judge: they will be trained again from the checkpoint."""
    unfinished = [
        version
        for version, state in registry.state().states.items()
        if state in (PolicyState.TRAINING, PolicyState.CANDIDATE)
    ]
    for version in unfinished:
        reject(registry, version, "the trainer stopped before it was judged", {})
    return unfinished


def learned_feedback(directory: Path) -> list[str]:
    """The feedback ids that the version in `directory` was the first to learn from."""
    return (directory / LEARNED).read_text().split()


@contextmanager
def policy_of(backbone: Backbone, adapter: Path, scratch: Path) -> Iterator[None]:
    """Let the backbone be the policy of `adapter` for a moment."""
    with tempfile.TemporaryDirectory(prefix="policy-", dir=scratch) as aside:
        backbone.save_adapter(Path(aside))
        backbone.load_adapter(adapter)
        try:
            yield
        finally:
            backbone.load_adapter(Path(aside))
