"""LoRA on CPU: each token gets its own adapter's product, whoever stands beside it in the batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

layers = pytest.importorskip("vllm.lora.layers")
ours = pytest.importorskip("server.engines.vllm_lora")

BASE = 0
PLACES = [9, None, 7]
"""The adapter's number in each place."""
IN, RANK, SLICES, SCALE = 12, 3, (8, 4), 0.5


@given(st.lists(st.sampled_from([BASE, 9, 7]), min_size=1, max_size=12), st.integers(0, 9))
def test_each_token_gets_its_own_adapters_product(adapters: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    a_P1RI = [torch.randn(len(PLACES), 1, RANK, IN) for _ in SLICES]
    b_P1SR = [torch.randn(len(PLACES), 1, width, RANK) for width in SLICES]
    x_TI, y_TO = torch.randn(len(adapters), IN), torch.randn(len(adapters), sum(SLICES))
    expected_TO = y_TO.double()
    for token, adapter in enumerate(adapters):
        if adapter != BASE:
            place = PLACES.index(adapter)
            low = [a[place, 0].double() @ x_TI[token].double() for a in a_P1RI]
            expected_TO[token] += SCALE * torch.cat(
                [b[place, 0].double() @ v for b, v in zip(b_P1SR, low, strict=True)]
            )
    wrapper = ours.GroupedLora(max_num_batched_tokens=16, max_batches=16, device="cpu")
    wrapper.update_metadata(
        layers.LoRAMapping(tuple(adapters), tuple(adapters), is_prefill=True), PLACES, len(PLACES) + 1, 100
    )
    wrapper.add_lora_linear(y_TO, x_TI, tuple(a_P1RI), tuple(b_P1SR), SCALE, SLICES)
    torch.testing.assert_close(y_TO.double(), expected_TO, atol=1e-4, rtol=1e-5)
