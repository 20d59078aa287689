"""The trainer's own sampling: what it draws, from which distributions, and what that costs the model."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.trainer.policies import backbone
from trainer.backbone import Backbone
from trainer.tokens import Sample


def test_greedy_generation_is_that_of_transformers(tiny_model: Path) -> None:
    prompts: list[tuple[int, ...]] = [(5, 6, 7, 8, 9, 10), (11,), (40, 41, 42)]
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for found, prompt in zip(generate(backbone(tiny_model), prompts, temperature=0.0), prompts, strict=True):
        expected = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12)[0, len(prompt) :]
        assert found == Sample(prompt, tuple(expected.tolist()))


def test_sampling_follows_the_policy_and_its_seed(tiny_model: Path) -> None:
    policy = backbone(tiny_model, moved=0.1)
    prompts: list[tuple[int, ...]] = [(5, 6, 7) for _ in range(64 * 8)]
    first = policy.generate(prompts, max_new_tokens=1, temperature=0.5, seed=1)
    assert policy.generate(prompts, max_new_tokens=1, temperature=0.5, seed=1) == first
    assert policy.generate(prompts, max_new_tokens=1, temperature=0.5, seed=2) != first
    logprobs, entropy, _ = policy.policy_logprobs(first, 0.5)
    surprise = -logprobs.mean().item()
    spread = logprobs.std().item() / len(first) ** 0.5
    assert abs(surprise - entropy[0, 0].item()) < 4 * spread, "mean surprise of draws is the entropy"


@pytest.mark.parametrize(("dtype", "nats"), [(torch.float32, 1e-3), (torch.bfloat16, 0.2)])
def test_draws_carry_the_logprobs_they_were_drawn_with(tiny_model: Path, dtype: torch.dtype, nats: float) -> None:
    policy = backbone(tiny_model, dtype=dtype, moved=0.1)
    policy.stored = dtype  # without the rounding of its files
    prompts = [(token, 5, 6)[: 1 + token % 3] for token in range(3, 43)] * 2
    drawn = policy.draw(prompts, max_new_tokens=20, temperature=0.7, seed=4)
    samples = [each.sample for each in drawn]
    assert samples == policy.generate(prompts, max_new_tokens=20, temperature=0.7, seed=4)
    logprobs_BT, entropy_BT, mask_BT = policy.policy_logprobs(samples, 0.7)
    assert len(set(mask_BT.sum(-1).tolist())) > 1, "some end early"
    for each, logprobs_T, entropy_T, mask_T in zip(drawn, logprobs_BT.detach(), entropy_BT, mask_BT, strict=True):
        torch.testing.assert_close(each.logprobs_T, logprobs_T[mask_T], rtol=0, atol=nats)
        torch.testing.assert_close(each.entropy_T, entropy_T[mask_T], rtol=0, atol=nats)


def test_a_prompt_is_read_once_for_all_its_answers(tiny_model: Path) -> None:
    policy = backbone(tiny_model)
    read: list[tuple[int, ...]] = []
    decoder = policy.model.get_base_model().get_decoder()
    handle = decoder.register_forward_pre_hook(
        lambda _, __, inputs: read.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    generate(policy, [(5, 6, 7), (8, 9), (5, 6, 7), (5, 6, 7)], temperature=0.0)
    handle.remove()
    assert read[:2] == [(2, 3), (4, 1)]


def test_the_head_is_given_one_contiguous_state_a_row(tiny_model: Path) -> None:
    policy = backbone(tiny_model)
    given: list[torch.Tensor] = []
    head = policy.model.get_base_model().get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    generate(policy, [(5, 6, 7), (8, 9)], temperature=0.0)
    handle.remove()
    assert all(hidden.dim() == 2 and hidden.is_contiguous() for hidden in given), "else it is copied once a row"


def test_generation_stops_at_eos_row_by_row(tiny_model: Path) -> None:
    prompts: list[tuple[int, ...]] = [(token,) for token in range(3, 67)]
    policy = backbone(tiny_model)
    drawn = policy.generate(prompts, max_new_tokens=60, temperature=1.5, seed=0)
    assert [sample.prompt_ids for sample in drawn] == prompts
    stopped = [sample.response_ids[-1] in policy.eos_token_ids for sample in drawn]
    assert 0 < sum(stopped) < len(stopped)
    for sample, stop in zip(drawn, stopped, strict=True):
        assert not set(sample.response_ids[:-1]) & policy.eos_token_ids
        assert stop or len(sample.response_ids) == 60


def generate(policy: Backbone, prompts: list[tuple[int, ...]], *, temperature: float) -> list[Sample]:
    return policy.generate(prompts, max_new_tokens=12, temperature=temperature, seed=0)
