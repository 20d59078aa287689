"""What every engine must do. Subclass it, give it an `engine` fixture, and it runs against yours.

The engine serves `tests.tiny_model`; references are Hugging Face forward passes in float32 over the same files.
"""

import asyncio
import time
from contextlib import aclosing
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from transformers import AutoTokenizer

from server.engines.base import Engine, Sampling, SwapFailed, Weights
from tests.server.engine_reference import (
    DRAWN,
    GREEDY,
    Completion,
    complete,
    damaged,
    make_version,
    merged,
    of_tokens,
    reference_logprobs,
    reference_model,
    request,
)

BASE = "p000000-base"
OTHER = "p000001-other"
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class EngineSuite:
    tolerance: ClassVar[float]
    """Nats that a logprob may differ from the float32 reference."""

    @pytest.fixture
    def engine(self) -> Engine:
        raise NotImplementedError("a started engine on the model of `tiny_model`; session loop, any scope")

    @pytest.fixture(scope="class")
    def base(self, tiny_model: Path) -> Weights:
        return Weights(BASE, tiny_model)

    @pytest.fixture(scope="class")
    def other(self, engine: Engine, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Weights:
        return make_version(engine, OTHER, tiny_model, tmp_path_factory.mktemp("other"), seed=7)

    @pytest.fixture(autouse=True)
    async def _serving_base(self, engine: Engine, base: Weights) -> None:
        if engine.version != BASE:
            await engine.swap(base)

    @pytest.fixture(scope="class")
    def prompt(self, tiny_model: Path) -> tuple[int, ...]:
        return tuple(
            AutoTokenizer.from_pretrained(tiny_model)("tell me about you and the good they maybe")["input_ids"]
        )

    async def test_greedy_takes_the_most_likely_token(
        self, engine: Engine, base: Weights, prompt: tuple[int, ...]
    ) -> None:
        """Equal to Hugging Face's own greedy search, but for ties that arithmetic in another order may break."""
        [completion] = await complete(engine, request(prompt, GREEDY))
        logprobs_TV = reference_logprobs(base.directory, prompt, completion.token_ids)
        best_T, chosen_T = logprobs_TV.max(dim=-1).values, of_tokens(logprobs_TV, completion.token_ids)
        assert (best_T - chosen_T).max() <= 2 * self.tolerance
        if self.tolerance < 1e-3:
            generated = reference_model(base.directory).generate(
                torch.tensor([prompt]), do_sample=False, max_new_tokens=GREEDY.max_tokens
            )
            assert generated[0, len(prompt) :].tolist() == completion.token_ids

    async def test_logprobs_equal_a_fresh_forward_pass(
        self, engine: Engine, base: Weights, prompt: tuple[int, ...]
    ) -> None:
        [completion] = await complete(engine, request(prompt, DRAWN))
        expected_T = of_tokens(reference_logprobs(base.directory, prompt, completion.token_ids), completion.token_ids)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected_T, atol=self.tolerance, rtol=0)

    async def test_logprobs_are_those_of_the_distribution_drawn_from(
        self, engine: Engine, base: Weights, prompt: tuple[int, ...]
    ) -> None:
        sampling = Sampling(temperature=0.7, top_p=1, top_k=8, max_tokens=16)
        [completion] = await complete(engine, request(prompt, sampling))
        scaled_TV = reference_logprobs(base.directory, prompt, completion.token_ids) / sampling.temperature
        mass_T = scaled_TV.topk(sampling.top_k).values.logsumexp(dim=-1)
        expected_T = of_tokens(scaled_TV, completion.token_ids) - mass_T
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected_T, atol=3 * self.tolerance, rtol=0)

    async def test_score_is_the_logprob_at_temperature_one(
        self, engine: Engine, base: Weights, prompt: tuple[int, ...]
    ) -> None:
        completion = [40, 41, 300, 7]
        expected_T = of_tokens(reference_logprobs(base.directory, prompt, completion), completion)
        scored = await engine.score(prompt, tuple(completion))
        torch.testing.assert_close(torch.tensor(scored), expected_T, atol=self.tolerance, rtol=0)

    async def test_scores_beside_other_requests(self, engine: Engine, other: Weights, prompt: tuple[int, ...]) -> None:
        await engine.swap(other)
        completion = [40, 41, 300, 7]
        expected_T = of_tokens(reference_logprobs(merged(other), prompt, completion), completion)
        long = Sampling(temperature=1, top_p=1, top_k=0, max_tokens=100)
        stream = asyncio.create_task(complete(engine, request(prompt, long, candidate_count=4)))
        while not stream.done():
            scored = await engine.score(prompt, tuple(completion))
            torch.testing.assert_close(torch.tensor(scored), expected_T, atol=self.tolerance, rtol=0)
        await stream

    async def test_candidates_differ_and_finish_once_each(self, engine: Engine, prompt: tuple[int, ...]) -> None:
        completions = await complete(engine, request(prompt, candidate_count=4))
        assert all(c.finish_reason in ("stop", "length") for c in completions)
        assert len({tuple(c.token_ids) for c in completions}) == 4

    async def test_a_seed_draws_the_same_again(self, engine: Engine, prompt: tuple[int, ...]) -> None:
        seeded = Sampling(temperature=1, top_p=0.9, top_k=50, max_tokens=12, seed=11)
        first, second = [await complete(engine, request(prompt, seeded, candidate_count=2)) for _ in range(2)]
        assert [c.token_ids for c in first] == [c.token_ids for c in second]
        assert first[0].token_ids != first[1].token_ids

    async def test_text_ends_before_a_stop_string(self, engine: Engine, prompt: tuple[int, ...]) -> None:
        [free] = await complete(engine, request(prompt, GREEDY))
        assert len(free.text) > 8
        stop = free.text[5:8]
        stopping = Sampling(temperature=0, top_p=1, top_k=0, max_tokens=24, stop=(stop,))
        [stopped] = await complete(engine, request(prompt, stopping))
        assert stopped.text == free.text[: free.text.index(stop)]
        assert stopped.finish_reason == "stop"

    async def test_the_text_is_that_of_the_tokens(
        self, engine: Engine, tiny_model: Path, prompt: tuple[int, ...]
    ) -> None:
        [completion] = await complete(engine, request(prompt))
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        decoded = tokenizer.decode(completion.token_ids, skip_special_tokens=True)
        # Cut off in the middle of a character: its first bytes are no text.
        assert completion.text.rstrip(INCOMPLETE) == decoded.rstrip(INCOMPLETE)

    async def test_length_is_bounded_by_max_tokens_and_by_the_model(
        self, engine: Engine, prompt: tuple[int, ...]
    ) -> None:
        # Greedy tokens of a random model rarely end by themselves; if they do, the bound holds all the more.
        [completion] = await complete(engine, request(prompt, Sampling(0, 1, 0, max_tokens=3)))
        assert len(completion.token_ids) == 3
        assert completion.finish_reason == "length"
        long = (prompt * engine.max_model_len)[: engine.max_model_len - 5]
        [completion] = await complete(engine, request(long, Sampling(0, 1, 0, max_tokens=5)))
        assert len(completion.token_ids) <= 5

    async def test_requests_join_and_leave_while_others_decode(
        self, engine: Engine, base: Weights, prompt: tuple[int, ...]
    ) -> None:
        """Prompts of different lengths, arriving at different times, give what each gives alone."""
        prompts = [prompt[: 3 + 2 * i] for i in range(4)]
        alone = [await complete(engine, request(p, GREEDY)) for p in prompts]

        async def late(index: int) -> list[Completion]:
            await asyncio.sleep(0.02 * index)
            return await complete(engine, request(prompts[index], GREEDY))

        together = await asyncio.gather(*map(late, range(4)))
        for p, [one], [many] in zip(prompts, alone, together, strict=True):
            if self.tolerance < 1e-3:
                assert many.token_ids == one.token_ids
            expected_T = of_tokens(reference_logprobs(base.directory, p, many.token_ids), many.token_ids)
            torch.testing.assert_close(torch.tensor(many.logprobs), expected_T, atol=self.tolerance, rtol=0)

    async def test_closing_the_iterator_frees_the_slot_within_a_second(
        self, engine: Engine, prompt: tuple[int, ...]
    ) -> None:
        """More long requests than fit are begun and left; a new one is then answered at once."""
        endless = Sampling(temperature=1, top_p=1, top_k=0, max_tokens=engine.max_model_len - len(prompt))

        async def begin_and_leave() -> None:
            async with aclosing(engine.generate(request(prompt, endless, candidate_count=8))) as deltas:
                async for _ in deltas:
                    return

        await asyncio.gather(*(begin_and_leave() for _ in range(4)))
        begun = time.monotonic()
        await complete(engine, request(prompt, Sampling(0, 1, 0, max_tokens=1)))
        assert time.monotonic() - begun < 1

    async def test_swap_keeps_streams_and_spans_cover_every_token(
        self, engine: Engine, other: Weights, prompt: tuple[int, ...]
    ) -> None:
        sampling = Sampling(temperature=1, top_p=1, top_k=0, max_tokens=200)
        streams = [
            asyncio.create_task(complete(engine, request(prompt, sampling, candidate_count=4))) for _ in range(2)
        ]
        await asyncio.sleep(0.1)
        await engine.swap(other)
        assert engine.version == OTHER
        completions = [c for stream in await asyncio.gather(*streams) for c in stream]
        for completion in completions:
            assert completion.finish_reason in ("stop", "length")
            covered = [i for span in completion.spans for i in range(span.start, span.end)]
            assert covered == list(range(len(completion.token_ids)))
        [after] = await complete(engine, request(prompt))
        assert {span.version for span in after.spans} == {OTHER}
        # In mode adapter what is in flight stays with the version that it began with.
        seen = {span.version for c in completions for span in c.spans}
        assert seen == ({BASE} if engine.swap_mode == "adapter" else {BASE, OTHER})

    async def test_swapped_logprobs_equal_a_fresh_load(
        self, engine: Engine, base: Weights, other: Weights, prompt: tuple[int, ...]
    ) -> None:
        await complete(engine, request(prompt, GREEDY))  # a prefix that must not be reused
        for weights in (other, base, other):
            await engine.swap(weights)
            [completion] = await complete(engine, request(prompt))
            assert {span.version for span in completion.spans} == {weights.version}
            logprobs_TV = reference_logprobs(merged(weights), prompt, completion.token_ids)
            torch.testing.assert_close(
                torch.tensor(completion.logprobs),
                of_tokens(logprobs_TV, completion.token_ids),
                atol=self.tolerance,
                rtol=0,
            )

    async def test_several_versions_at_once_or_a_refusal(
        self, engine: Engine, base: Weights, other: Weights, prompt: tuple[int, ...]
    ) -> None:
        if engine.swap_mode == "weights":
            with pytest.raises(SwapFailed, match="one version at a time"):
                await engine.load(other)
            return
        await engine.load(other)
        assert engine.version == BASE
        named = [request(prompt, candidate_count=2, version=v) for v in (BASE, OTHER, "", "p999999-unknown")]
        for drawn, weights in zip(
            await asyncio.gather(*(complete(engine, each) for each in named)), (base, other, base, base), strict=True
        ):
            for completion in drawn:
                assert [span.version for span in completion.spans] == [weights.version]
                logprobs_TV = reference_logprobs(merged(weights), prompt, completion.token_ids)
                expected_T = of_tokens(logprobs_TV, completion.token_ids)
                torch.testing.assert_close(torch.tensor(completion.logprobs), expected_T, atol=self.tolerance, rtol=0)
        completion_ids = (40, 41, 300, 7)
        for weights in (base, other):
            scored = await engine.score(prompt, completion_ids, weights.version)
            expected_T = of_tokens(reference_logprobs(merged(weights), prompt, [*completion_ids]), [*completion_ids])
            torch.testing.assert_close(torch.tensor(scored), expected_T, atol=self.tolerance, rtol=0)
        await engine.unload(OTHER)
        [after] = await complete(engine, request(prompt, version=OTHER))
        assert {span.version for span in after.spans} == {BASE}

    @pytest.mark.parametrize("damage", ["missing tensor", "wrong shape", "truncated file", "no file"])
    async def test_bad_weights_are_refused_and_the_old_ones_serve(
        self, engine: Engine, other: Weights, prompt: tuple[int, ...], tmp_path: Path, damage: str
    ) -> None:
        bad = Weights("p000002-bad", damaged(other.directory, tmp_path / "bad", damage), other.adapter)
        before = await complete(engine, request(prompt, GREEDY))
        with pytest.raises(SwapFailed):
            await engine.swap(bad)
        assert engine.version == BASE
        assert [c.token_ids for c in await complete(engine, request(prompt, GREEDY))] == [c.token_ids for c in before]

    async def test_background_work_comes_after_users(self, engine: Engine, prompt: tuple[int, ...]) -> None:
        """A user who arrives behind far more rollouts than fit is answered before most of them."""
        finished: list[str] = []

        async def run(who: str, background: bool) -> None:
            sampling = Sampling(temperature=1, top_p=1, top_k=0, max_tokens=40)
            await complete(engine, request(prompt, sampling, background=background, candidate_count=8))
            finished.append(who)

        rollouts = [asyncio.create_task(run("rollout", background=True)) for _ in range(12)]
        await asyncio.sleep(0.05)
        await run("user", background=False)
        await asyncio.gather(*rollouts)
        assert finished.index("user") < 6
