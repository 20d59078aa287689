"""The backbone: one copy of the weights, two policies, and no sample that depends on its neighbours."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.gradients import gradient
from tests.trainer.policies import backbone, some_samples
from trainer.tokens import Sample


def plain_logprobs(model: torch.nn.Module, sample: Sample, temperature: float) -> torch.Tensor:
    """Of the response, from the whole logits of the sample alone."""
    ids = torch.tensor([sample.prompt_ids + sample.response_ids])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].double() / temperature
    response = torch.tensor(sample.response_ids)
    return torch.log_softmax(logits[len(sample.prompt_ids) - 1 : -1], -1).gather(-1, response[:, None]).squeeze(-1)


@pytest.fixture
def samples() -> list[Sample]:
    return some_samples()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_frozen_pass_is_the_base_model_sample_by_sample(
    tiny_model: Path, samples: list[Sample], temperature: float
) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    passes = backbone(tiny_model, moved=0.1).frozen(samples, temperature=temperature)
    for sample, passed in zip(samples, passes, strict=True):
        expected = plain_logprobs(base, sample, temperature)
        torch.testing.assert_close(passed.reference_logprobs_T.double(), expected, rtol=1e-4, atol=1e-4)
        assert passed.hidden_TD.shape == (len(sample.response_ids), 128)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [0.5, 1.0])
def test_policy_logprobs_do_not_depend_on_padding_neighbours_or_reuse(
    tiny_model: Path, samples: list[Sample], layers: float
) -> None:
    policy = backbone(tiny_model, layers=layers, moved=0.1)
    frozen = policy.frozen(samples, temperature=1.0)
    together, entropy, mask = policy.policy_logprobs(samples, 1.0)
    reused, _, _ = policy.policy_logprobs(samples, 1.0, frozen)
    torch.testing.assert_close(reused, together, rtol=1e-4, atol=1e-4)
    assert (together[~mask] == 0).all()
    assert (entropy[mask] > 0).all()
    for b, sample in enumerate(samples):
        alone, _, _ = policy.policy_logprobs([sample], 1.0)
        torch.testing.assert_close(together[b][mask[b]], alone[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            plain_logprobs(policy.model, sample, 1.0).float(), alone[0].detach(), rtol=1e-4, atol=1e-4
        )


def test_reused_lower_layers_give_the_same_gradients(tiny_model: Path, samples: list[Sample]) -> None:
    policy = backbone(tiny_model, moved=0.1)
    frozen = policy.frozen(samples, temperature=1.0)
    gradients = []
    for reuse in (None, frozen):
        policy.model.zero_grad()
        policy.policy_logprobs(samples, 1.0, reuse)[0].sum().backward()
        gradients.append([gradient(parameter).clone() for parameter in policy.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)


def test_gradient_agrees_with_finite_differences(tiny_model: Path, samples: list[Sample]) -> None:
    policy = backbone(tiny_model, moved=0.1)
    policy.policy_logprobs(samples, 1.0)[0].sum().backward()
    generator = torch.Generator().manual_seed(0)
    parameters = policy.parameters()
    directions = [torch.randn(p.shape, generator=generator) for p in parameters]
    slope = sum((gradient(p) * d).sum().item() for p, d in zip(parameters, directions, strict=True))

    def moved(step: float) -> float:
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=step)
            total = policy.policy_logprobs(samples, 1.0)[0].double().sum().item()
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.sub_(direction, alpha=step)
        return total

    step = 1e-4
    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(slope, rel=0.02)


class Sums:
    """Sums over the response of some layers' inputs."""

    def __init__(self, *layers: int) -> None:
        self._layers = layers

    def layers(self, depth: int) -> tuple[int, ...]:
        assert depth == 4
        return self._layers

    def __call__(
        self, states_BTD: tuple[torch.Tensor, ...], tokens_BT: torch.Tensor, response_mask_BT: torch.Tensor
    ) -> torch.Tensor:
        return torch.cat([(state * response_mask_BT[..., None]).sum(1) for state in states_BTD], -1)


@pytest.mark.parametrize("layers", [(0,), (0, 2), (3, 1)])
def test_pool_reads_layers_at_the_response_tokens(
    tiny_model: Path, samples: list[Sample], layers: tuple[int, ...]
) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    policy = backbone(tiny_model, layers=1.0, moved=0.1)
    passes = policy.frozen(samples, temperature=1.0, pool=Sums(*layers))
    features_BF = policy.features(samples, Sums(*layers))
    for sample, passed, features_F in zip(samples, passes, features_BF, strict=True):
        ids = torch.tensor([sample.prompt_ids + sample.response_ids])
        with torch.no_grad():
            states = base(input_ids=ids, output_hidden_states=True).hidden_states
        expected = torch.cat([states[layer][0, len(sample.prompt_ids) :].sum(0) for layer in layers])
        torch.testing.assert_close(passed.pooled, expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(features_F, passed.pooled)


def test_features_run_no_layer_above_the_last_that_is_read(tiny_model: Path, samples: list[Sample]) -> None:
    policy = backbone(tiny_model)
    before = policy.frozen(samples, temperature=1.0)
    ran: list[int] = []
    decoder = policy.model.get_base_model().get_decoder()
    handles = [
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
        for index, layer in enumerate(decoder.layers)
    ]
    policy.features(samples, Sums(0, 2))
    for handle in handles:
        handle.remove()
    assert set(ran) == {0, 1}
    with pytest.raises(ValueError, match=r"layers \(4,\): this decoder's are 0 … 3"):
        policy.features(samples, Sums(4))
    after = policy.frozen(samples, temperature=1.0)
    assert all(torch.equal(b.reference_logprobs_T, a.reference_logprobs_T) for b, a in zip(before, after, strict=True))


def test_training_leaves_the_reference_alone(tiny_model: Path, samples: list[Sample]) -> None:
    policy = backbone(tiny_model, dtype=torch.bfloat16)
    before = policy.frozen(samples, temperature=1.0)
    start, _, _ = policy.policy_logprobs(samples, 1.0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (-policy.policy_logprobs(samples, 1.0)[0].sum()).backward()
        optimizer.step()
    policy.generate([sample.prompt_ids for sample in samples], max_new_tokens=2, temperature=1.0, seed=0)

    after = policy.frozen(samples, temperature=1.0)
    assert all(torch.equal(b.reference_logprobs_T, a.reference_logprobs_T) for b, a in zip(before, after, strict=True))
    assert policy.policy_logprobs(samples, 1.0)[0].sum() > start.sum() + 1


def test_merged_model_is_the_adapted_one(tiny_model: Path, samples: list[Sample], tmp_path: Path) -> None:
    policy = backbone(tiny_model, dtype=torch.bfloat16, moved=0.05)
    policy.save_merged(tmp_path / "first")
    policy.save_merged(tmp_path / "second")
    assert (tmp_path / "first/model.safetensors").read_bytes() == (tmp_path / "second/model.safetensors").read_bytes()

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert merged.dtype == torch.bfloat16
    assert merged.lm_head.weight.data_ptr() == merged.model.embed_tokens.weight.data_ptr()
    assert AutoTokenizer.from_pretrained(tmp_path / "first").chat_template

    logprobs, _, mask = policy.policy_logprobs(samples, 1.0)
    gaps, moves = [], []
    for b, sample in enumerate(samples):
        found = plain_logprobs(merged, sample, 1.0)
        gaps.append((found - logprobs[b][mask[b]].detach()).abs())
        moves.append((found - plain_logprobs(base, sample, 1.0)).abs())
    assert torch.cat(gaps).mean() < 0.05, "nats: bf16 rounding"
    assert torch.cat(moves).mean() > 10 * torch.cat(gaps).mean(), "far less than what the adapters do"


def test_merged_directory_names_the_same_tensors_as_the_base(tiny_model: Path, tmp_path: Path) -> None:
    backbone(tiny_model, dtype=torch.bfloat16, moved=0.05).save_merged(tmp_path)
    base, merged = load_file(tiny_model / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert {name: tensor.shape for name, tensor in base.items()} == {n: t.shape for n, t in merged.items()}
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert {name.split(".")[2] for name in changed} == {"2", "3"}
    assert len(changed) == 14


def test_files_stay_as_narrow_as_the_base_models(tiny_model: Path, samples: list[Sample], tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    base.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "base")
    policy = backbone(tmp_path / "base", dtype=torch.float32, moved=0.1)
    policy.save_merged(tmp_path / "merged")

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == torch.bfloat16
    old, new = load_file(tmp_path / "base/model.safetensors"), load_file(tmp_path / "merged/model.safetensors")
    changed = {name.split(".")[2] for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"2", "3"}, "what has no adapters is the base model's, bit for bit"

    published = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    for each in policy.draw([sample.prompt_ids for sample in samples], max_new_tokens=9, temperature=1.0, seed=3):
        found = plain_logprobs(published, each.sample, 1.0)
        torch.testing.assert_close(each.logprobs_T.double(), found, rtol=1e-4, atol=1e-4)


def test_adapter_round_trip(tiny_model: Path, samples: list[Sample], tmp_path: Path) -> None:
    policy = backbone(tiny_model, moved=0.1)
    policy.save_adapter(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 8
    restored = backbone(tiny_model)
    restored.load_adapter(tmp_path)
    for saved, loaded in zip(policy.parameters(), restored.parameters(), strict=True):
        assert torch.equal(saved, loaded)


def test_an_adapter_of_other_layers_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    backbone(tiny_model, layers=1.0).save_adapter(tmp_path / "all")
    backbone(tiny_model, layers=0.25).save_adapter(tmp_path / "few")
    with pytest.raises(ValueError, match="28 unknown"):
        backbone(tiny_model).load_adapter(tmp_path / "all")
    with pytest.raises(ValueError, match="14 tensors missing"):
        backbone(tiny_model).load_adapter(tmp_path / "few")


def test_an_adapter_is_read_from_safetensors_on_this_disk_alone(tiny_model: Path, tmp_path: Path) -> None:
    policy = backbone(tiny_model)
    torch.save({}, tmp_path / "adapter_model.bin")
    for directory in (tmp_path, tmp_path / "gone"):
        with pytest.raises(FileNotFoundError, match=r"adapter_model\.safetensors"):
            policy.load_adapter(directory)
