"""Which prompts teach and which judge."""

from hypothesis import given
from hypothesis import strategies as st

from feedback.judgement import Prompt
from trainer import prompts
from trainer.prompts import PromptPool

texts = st.text(min_size=1, max_size=20)


def ask(text: str, *more: str, conversation: str = "c") -> Prompt:
    turns = [("user", text)]
    for reply, question in zip(more[::2], more[1::2], strict=True):
        turns += [("assistant", reply), ("user", question)]
    return Prompt(conversation, tuple(turns), (1, 2, 3), 0.0)


@given(opening=texts, reply=texts, question=texts, fraction=st.floats(0.05, 0.95))
def test_all_that_opens_alike_is_on_one_side(opening: str, reply: str, question: str, fraction: float) -> None:
    sides = {
        prompts.is_held_out(ask(opening, conversation="c1"), fraction),
        prompts.is_held_out(ask(opening, reply, question, conversation="c1"), fraction),
        prompts.is_held_out(ask(opening, conversation="c2"), fraction),
    }
    assert len(sides) == 1


def test_about_the_fraction_asked_for_is_held_out() -> None:
    pool = prompts.split([ask(f"question {i}") for i in range(2000)], 0.15)
    assert len(pool.training) + len(pool.held_out) == 2000
    assert 250 < len(pool.held_out) < 350  # 300 ± 3 standard deviations


def test_rollouts_take_distinct_training_prompts_while_there_are_enough() -> None:
    pool = PromptPool(tuple(ask(str(i)) for i in range(6)), (ask("held out"),))
    chosen = prompts.for_rollouts(pool, 4, seed=1)
    assert len(set(chosen)) == 4
    assert chosen == prompts.for_rollouts(pool, 4, seed=1)
    assert chosen != prompts.for_rollouts(pool, 4, seed=2)
    assert len(prompts.for_rollouts(pool, 20, seed=1)) == 20
    assert prompts.for_rollouts(PromptPool((), ()), 4, seed=1) == []
    assert ask("held out") not in prompts.for_rollouts(pool, 20, seed=1)


class Spelling:
    """A tokenizer by letter: the prompts module asks a tokenizer for nothing but its chat template."""

    def apply_chat_template(self, turns: list[dict[str, str]], **_: object) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for turn in turns for letter in turn["content"]]}


def test_probes_fill_up_the_gate() -> None:
    pool = PromptPool((), tuple(ask(str(i)) for i in range(3)))
    chosen = prompts.for_gate(pool, 5, Spelling())
    assert chosen[:3] == [(1, 2, 3)] * 3
    assert chosen[3] == tuple(map(ord, prompts.PROBES[0]))
    assert len(chosen) == 5
    assert len(prompts.for_gate(pool, 2, Spelling())) == 2
    assert len(prompts.for_gate(pool, 100, Spelling())) == 3 + len(prompts.PROBES)


def test_imported_prompts_are_tokenised_here() -> None:
    assert prompts.token_ids(Spelling(), Prompt("c", (("user", "ab"),), (), 0.0)) == (97, 98)
