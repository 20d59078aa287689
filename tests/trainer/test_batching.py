"""Rows and micro-batches: every token where it belongs, whatever the samples."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.batching import ROW_TOKENS, lay_out, micro_batches
from trainer.tokens import Sample

PAD = 0
tokens = st.lists(st.integers(1, 9), min_size=1, max_size=12).map(tuple)
prompts = st.lists(tokens, min_size=1, max_size=4)


@st.composite
def sample_lists(draw: st.DrawFn) -> list[Sample]:
    shared = draw(prompts)
    return draw(st.lists(st.builds(Sample, st.sampled_from(shared), tokens), min_size=1, max_size=16))


@given(sample_lists(), st.integers(1, 200), st.booleans())
def test_every_sample_is_in_one_micro_batch_within_the_budget(samples: list[Sample], budget: int, share: bool) -> None:
    batches = micro_batches(samples, budget, share_prompts=share)
    assert sorted(index for batch in batches for index in batch) == list(range(len(samples)))
    for batch in batches:
        rows, width = lay_out([samples[i] for i in batch], PAD, share_prompts=share).input_ids_RS.shape
        assert rows == 1 or rows * width <= budget


@pytest.mark.slow
@settings(deadline=None)
@given(sample_lists(), st.booleans())
def test_a_token_sees_its_prompt_and_what_came_before_it_in_its_own_response(
    samples: list[Sample], share: bool
) -> None:
    layout = lay_out(samples, PAD, share_prompts=share)
    rows, width = layout.input_ids_RS.shape
    causal = torch.ones(width, width, dtype=torch.bool).tril().expand(rows, width, width)
    sees = causal if layout.attention_mask is None else layout.attention_mask[:, 0]
    for b, sample in enumerate(samples):
        assert layout.mask_BT[b].sum() == len(sample.response_ids)
        for t, token in enumerate(sample.response_ids):
            at = int(layout.token_BT[b, t])
            row, column = divmod(at, width)
            seen = sees[row, column].nonzero().flatten()
            context = sample.prompt_ids + sample.response_ids[: t + 1]
            assert tuple(layout.input_ids_RS[row, seen].tolist()) == context
            assert layout.position_ids_RS[row, seen].tolist() == list(range(len(context)))
            assert token == context[-1]
            predictor_row, predictor = divmod(int(layout.predictor_BT[b, t]), width)
            assert predictor_row == row
            assert sees[row, predictor].nonzero().flatten().tolist() == seen[:-1].tolist()


def test_long_groups_break_into_several_rows() -> None:
    samples = [Sample((1,) * 100, (2,) * 100) for _ in range(9)]
    layout = lay_out(samples, PAD, share_prompts=True)
    assert layout.input_ids_RS.shape == (3, 500)
    assert ROW_TOKENS == 512
