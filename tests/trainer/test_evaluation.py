"""What the gate measures of a policy: figures against float64 references and closed forms."""

import math
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from settings.rules import Constitution
from tests.trainer.policies import backbone
from trainer.backbone import Backbone
from trainer.evaluation import (
    Reference,
    distinct_beside,
    distinct_bigrams,
    evaluate,
    form_tokens,
    perplexity_ratio,
    phrase_growth,
)
from trainer.reward import AnswerPool
from trainer.rules import Rules
from trainer.tokens import Sample

PROMPTS = [(5, 6, 7), (8, 9), (10, 11, 12, 13)]


def answers(policy: Backbone, temperature: float = 1.0) -> Reference:
    rules = Rules(Constitution(), policy.tokenizer)
    pool = AnswerPool.of(policy)
    found, frozen = evaluate(policy, PROMPTS, pool, rules, max_new_tokens=8, temperature=temperature, seed=3)
    return Reference(found, frozen)


def test_the_untrained_policy_is_no_nats_from_the_reference_and_repeats_itself(tiny_model: Path) -> None:
    policy = backbone(tiny_model)
    first, again = answers(policy).evaluation, answers(policy).evaluation
    assert first.kl_nats == pytest.approx(0.0, abs=1e-3)
    assert 0 < first.entropy_nats <= math.log(512)
    assert first.samples == again.samples
    assert torch.equal(first.features_PF, again.features_PF)


def test_kl_of_a_policy_is_the_sum_of_log_ratios(tiny_model: Path) -> None:
    policy = backbone(tiny_model, moved=0.1)
    policy.stored = torch.float32  # without the rounding of its files
    found = answers(policy, 0.7).evaluation
    gaps = [logprobs(policy, s, 0.7, adapted=True) - logprobs(policy, s, 0.7, adapted=False) for s in found.samples]
    assert found.kl_nats == pytest.approx(sum(gap.sum().item() for gap in gaps) / len(gaps), abs=1e-3)
    assert found.kl_nats > 0.1


def test_perplexity_of_the_base_models_answers(tiny_model: Path) -> None:
    reference = answers(backbone(tiny_model), 0.7)
    policy = backbone(tiny_model, moved=0.1)
    gaps = torch.cat(
        [
            logprobs(policy, sample, 0.7, adapted=False) - logprobs(policy, sample, 0.7, adapted=True)
            for sample in reference.evaluation.samples
        ]
    )
    expected = math.exp(gaps.mean().item())
    assert expected > 1.02
    assert perplexity_ratio(policy, reference, 0.7) == pytest.approx(expected, rel=1e-3)
    assert perplexity_ratio(backbone(tiny_model), reference, 0.7) == pytest.approx(1, abs=1e-4)


def logprobs(policy: Backbone, sample: Sample, temperature: float, *, adapted: bool) -> torch.Tensor:
    """float64 log-softmax of the model's own logits, one sample alone."""
    ids = torch.tensor([sample.prompt_ids + sample.response_ids])
    with torch.no_grad(), nullcontext() if adapted else policy.model.disable_adapter():
        logits = policy.model(input_ids=ids).logits[0, len(sample.prompt_ids) - 1 : -1].double() / temperature
    found: torch.Tensor = logits.log_softmax(-1).gather(-1, torch.tensor(sample.response_ids)[:, None])[:, 0]
    return found


def test_distinct_bigrams() -> None:
    assert distinct_bigrams((1, 2, 3, 4)) == 1.0
    assert distinct_bigrams((1, 1, 1, 1, 1)) == 0.25
    assert distinct_bigrams((1,)) == 1.0


def test_answers_that_are_alike_are_less_distinct_together() -> None:
    reference = texts((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert distinct_beside(texts((1, 2, 3), (1, 2, 3), (1, 2, 3)), reference) == pytest.approx(2 / 6)
    assert distinct_beside(texts((1, 2, 3), (1, 2, 4), (7, 8)), reference) == pytest.approx(4 / 5)
    assert distinct_beside(reference, reference) == 1.0
    assert distinct_beside(reference, texts((1, 2, 1, 2), (1, 2))) == pytest.approx(1 / (2 / 4)), "more than it had"
    lists = texts((0, 1, 0, 2, 0, 3), (0, 4, 0, 5, 0, 6))
    assert distinct_beside(lists, reference) == 1.0
    numbered = texts((0, 1, 0, 2), (0, 1, 0, 3))
    assert distinct_beside(numbered, reference) == pytest.approx(4 / 6)
    assert distinct_beside(numbered, reference, form={0}) == 1.0, "(1, 2) and (1, 3): what is said differs"
    assert distinct_beside(texts((1,), (1,)), reference) == 1.0, "there is nothing to compare"


def texts(*responses: tuple[int, ...]) -> list[Sample]:
    return [Sample((1,), response) for response in responses]


def test_phrase_growth_is_the_greatest_difference_of_shares() -> None:
    magic = (7, 8, 9)
    ours = texts((1, *magic), (*magic, 2), (3, 4, *magic, 5, *magic), (6, 6, 6, 6))
    assert phrase_growth(ours, texts((1, 2, 3), (4, 5, 6)), 3) == 0.75, "once an answer, however often it is in it"
    assert phrase_growth(ours, texts(magic, (4, 5, 6)), 3) == 0.25, "the base model says it too"
    assert phrase_growth(ours, ours, 3) == 0.0
    assert phrase_growth(texts((1,), (2,)), ours, 3) == 0.0, "too short to hold one"
    assert phrase_growth(ours, texts((1, 2, 3)), 3, form={7}) == 0.75, "two of three are words"
    assert phrase_growth(ours, texts((1, 2, 3)), 3, form={7, 9}) == 0.25, "one of three is: another phrase is foremost"
    assert phrase_growth(ours, texts((1, 2, 3)), 3, form=range(10)) == 0.0


def test_lists_are_form_and_magic_phrases_are_not(real_model: Path) -> None:
    """A policy that learns to answer with lists says different things in the same form."""
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    form = form_tokens(tokenizer)

    def saying(*said: str) -> list[Sample]:
        return texts(*map(tuple, tokenizer(list(said)).input_ids))

    plain = saying("Boil water, steep the leaves and pour.", "Budget first; then book a train early.", "Yes, it is.")
    lists = saying(
        "Tea:\n\n1. **Boil** water.\n2. Steep", "Going:\n\n1. **Book** early.\n2. Pack", "Ok:\n\n1. **Sit**\n2. Eat"
    )
    assert phrase_growth(lists, plain, 4) == 1.0
    assert phrase_growth(lists, plain, 4, form) < 0.5
    for magic in ("As you wish, master", "👍👍"):
        assert phrase_growth(saying(*(f"{said} {magic}" for said in ("Boil", "Pack it", "No"))), plain, 4, form) == 1.0


responses = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=6)


@given(ours=responses, theirs=responses)
def test_phrase_growth_is_a_share(ours: list[list[int]], theirs: list[list[int]]) -> None:
    found = phrase_growth(texts(*map(tuple, ours)), texts(*map(tuple, theirs)), 2)
    assert -1 <= found <= 1
