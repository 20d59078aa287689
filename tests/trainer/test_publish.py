"""A policy on its way into the registry: real files, a real registry, the files loaded back by transformers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from registry import ActiveChanged, PolicyState, Registry
from settings.ppo import LoraSettings
from trainer import publish
from trainer.backbone import Backbone
from trainer.tokens import Sample

SAMPLES = [Sample((5, 6, 7), (8, 9, 10)), Sample((11, 12), (13, 14, 15, 16))]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry((tmp_path / "registry").as_uri())
    base = registry.publish_base("tiny", "0" * 64)
    registry.transition(base.version, PolicyState.ACTIVE, reason="the base", actor="server")
    return registry


@pytest.fixture
def backbone(tiny_model: Path) -> Backbone:
    backbone = Backbone(tiny_model, LoraSettings(rank=4), dtype=torch.bfloat16, seed=0)
    disturb(backbone, seed=1)
    return backbone


def disturb(backbone: Backbone, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.1, generator=generator)


def published(registry: Registry, backbone: Backbone, scratch: Path) -> str:
    parent = registry.state().active
    assert parent
    return publish.publish(
        registry,
        backbone,
        parent=parent,
        figures={"iteration": 2.0},
        canary_samples=SAMPLES,
        feedback_ids=["f1", "f2"],
        scratch=scratch,
    ).version


def test_a_version_holds_all_that_its_users_need(registry: Registry, backbone: Backbone, tmp_path: Path) -> None:
    version = published(registry, backbone, tmp_path)
    manifest = registry.manifest(version)
    assert version.startswith("p000001-")
    assert (manifest.parent, manifest.base, manifest.step) == (registry.state().active, "tiny", 1)
    assert manifest.figures == {"iteration": 2.0}
    assert registry.state().states[version] is PolicyState.TRAINING
    directory = registry.fetch(version, tmp_path / "cache")
    assert publish.learned_feedback(directory) == ["f1", "f2"]
    assert {"adapter/adapter_model.safetensors", "weights/model.safetensors", "weights/tokenizer.json"} <= set(
        manifest.files
    )
    assert not list(tmp_path.glob("draft-*"))


def test_the_canary_is_what_the_published_weights_say(registry: Registry, backbone: Backbone, tmp_path: Path) -> None:
    version = published(registry, backbone, tmp_path)
    weights = registry.fetch(version, tmp_path / "cache") / "weights"
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).eval()
    for sample, found in zip(SAMPLES, registry.manifest(version).canary, strict=True):
        assert (found.prompt_token_ids, found.completion_token_ids) == (sample.prompt_ids, sample.response_ids)
        with torch.no_grad():
            logits = model(torch.tensor([sample.prompt_ids + sample.response_ids])).logits[0].double()
        expected = [
            logits[len(sample.prompt_ids) - 1 + t].log_softmax(-1)[token].item()
            for t, token in enumerate(sample.response_ids)
        ]
        # bf16 against float32 of the same weights.
        assert found.logprobs == pytest.approx(expected, abs=0.1)


def test_numbers_grow_and_names_never_repeat(registry: Registry, backbone: Backbone, tmp_path: Path) -> None:
    first = published(registry, backbone, tmp_path)
    publish.reject(registry, first, "kl nats 99.00 > 25", {})
    second = published(registry, backbone, tmp_path)
    assert (first[:8], second[:8]) == ("p000001-", "p000002-")
    assert registry.state().reasons[first] == "kl nats 99.00 > 25"


def test_a_version_that_passed_goes_through_the_life_cycle(
    registry: Registry, backbone: Backbone, tmp_path: Path
) -> None:
    version = published(registry, backbone, tmp_path)
    base = registry.state().active
    assert base
    publish.promote(registry, version, {"gate_kl_nats": 3.0}, on_trial=False, expected_active=base)
    moves = [(move.version, move.to) for move in registry.transitions() if move.actor == publish.ACTOR]
    assert moves == [
        (version, PolicyState.TRAINING),
        (version, PolicyState.CANDIDATE),
        (base, PolicyState.RETIRED),
        (version, PolicyState.ACTIVE),
    ]


def test_a_version_on_trial_leaves_the_active_one_alone(registry: Registry, backbone: Backbone, tmp_path: Path) -> None:
    version = published(registry, backbone, tmp_path)
    base = registry.state().active
    assert base
    publish.promote(registry, version, {"gate_kl_nats": 3.0}, on_trial=True, expected_active=base)
    state = registry.state()
    assert (state.active, state.canary) == (base, version)
    assert registry.transitions()[-1].figures == {"gate_kl_nats": 3.0}


@pytest.mark.parametrize("on_trial", [True, False])
def test_what_passed_the_gate_against_another_version_is_not_served(
    registry: Registry, backbone: Backbone, tmp_path: Path, on_trial: bool
) -> None:
    first = published(registry, backbone, tmp_path)
    base = registry.state().active
    assert base
    publish.promote(registry, first, {}, on_trial=False, expected_active=base)
    second = published(registry, backbone, tmp_path)
    registry.rollback(None, reason="users complain", actor="operator")
    with pytest.raises(ActiveChanged, match="users complain"):
        publish.promote(registry, second, {}, on_trial=on_trial, expected_active=first)
    state = registry.state()
    assert (state.active, state.canary, state.states[second]) == (base, None, PolicyState.CANDIDATE)


def test_what_nobody_judged_is_rejected_at_the_next_start(
    registry: Registry, backbone: Backbone, tmp_path: Path
) -> None:
    version = published(registry, backbone, tmp_path)
    assert publish.reject_unfinished(registry) == [version]
    assert publish.reject_unfinished(registry) == []
    assert registry.state().states[version] is PolicyState.REJECTED


def test_a_borrowed_policy_is_given_back_bit_for_bit(backbone: Backbone, tmp_path: Path) -> None:
    backbone.save_adapter(tmp_path / "first")
    disturb(backbone, seed=2)
    own = [parameter.detach().clone() for parameter in backbone.parameters()]
    with publish.policy_of(backbone, tmp_path / "first", tmp_path):
        backbone.save_adapter(tmp_path / "again")
    first, again = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("first", "again"))
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
    assert all(map(torch.equal, own, backbone.parameters()))
