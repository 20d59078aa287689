"""The canary's test: bad versions go, good ones stay, errors keep their rates, nobody decides alone."""

import math
import random
from collections import Counter
from itertools import islice

import pytest

from feedback.ratings import Rating
from foldback.v1.feedback_pb2 import FEEDBACK_SOURCE_IMPLICIT, FEEDBACK_SOURCE_MODEL
from settings.canary import CanarySettings
from tests.trainer.canary_world import BEGAN, CANARY, RIVAL, Traffic, rating, stream, trial
from trainer.canary import Case, Report, Verdict, decide
from trainer.canary_evidence import Evidence

SETTINGS = CanarySettings(watch_s=600)
DEPLOYMENTS = {
    "one replica, few ratings": Traffic(per_minute=4, share=1, history=100),
    "one replica": Traffic(per_minute=20, share=1, history=200),
    "many replicas, few ratings": Traffic(per_minute=30, share=0.1, history=400),
    "many replicas": Traffic(per_minute=150, share=0.2, history=400),
}
TRIALS = 100


def most(rate: float, trials: int) -> float:
    """How often an event of this rate is seen, at most, but for one run in a thousand (binomial)."""
    return trials * rate + 3.1 * math.sqrt(trials * rate * (1 - rate))


@pytest.mark.slow
@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_bad_canary_is_rolled_back_and_a_good_one_stays(name: str) -> None:
    # Where ratings come fast, the watch is decided long before its end.
    settings = CanarySettings() if "few" in name else SETTINGS
    bad = [trial(DEPLOYMENTS[name], settings, canary_likes=0.3, seed=seed) for seed in range(TRIALS)]
    assert sum(outcome.taken_down for outcome in bad) >= 95
    good = [trial(DEPLOYMENTS[name], settings, canary_likes=0.75, seed=seed) for seed in range(TRIALS)]
    assert sum(outcome.stays for outcome in good) >= 90


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_worse_by_the_margin_is_found_as_good_at_the_stated_rate_at_most(share: float) -> None:
    settings = CanarySettings(undecided="roll_back", max_wait_s=400, watch_s=0)
    traffic = Traffic(per_minute=60, share=share, history=400)
    likes = 0.65 - settings.margin
    verdicts = Counter(trial(traffic, settings, canary_likes=likes, seed=seed).verdict for seed in range(TRIALS))
    assert verdicts[Verdict.PROMOTED] <= most(settings.false_promotion_rate, TRIALS)
    # Without evidence nothing is promoted, and the test is not merely blind.
    assert verdicts[Verdict.TRUSTED] == 0
    assert verdicts[Verdict.ROLLED_BACK] >= TRIALS / 4


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_as_good_is_found_worse_at_the_stated_rate_at_most(share: float) -> None:
    settings = CanarySettings(undecided="roll_back", max_wait_s=400, watch_s=0)
    traffic = Traffic(per_minute=60, share=share, history=400)
    verdicts = Counter(trial(traffic, settings, canary_likes=0.65, seed=seed).verdict for seed in range(TRIALS))
    assert verdicts[Verdict.ROLLED_BACK] <= most(settings.false_rollback_rate, TRIALS)
    assert verdicts[Verdict.PROMOTED] >= TRIALS / 4


@pytest.mark.parametrize(
    ("hostile_to", "likes", "wrong"), [(CANARY, 0.65, Verdict.ROLLED_BACK), (RIVAL, 0.5, Verdict.PROMOTED)]
)
def test_a_rater_who_says_as_much_as_all_others_seldom_turns_it(hostile_to: str, likes: float, wrong: Verdict) -> None:
    """The true answer is the other one; the hostile rater knows the versions and lies about both."""
    verdicts = Counter[Verdict]()
    for seed in range(50):
        case, chosen = Case(CANARY, RIVAL, BEGAN, SETTINGS), random.Random(seed)
        verdict = Verdict.WAIT
        for real in islice(stream(Traffic(per_minute=20, share=0.5, history=0, raters=12), likes, 0.65, seed), 200):
            version = chosen.choice([CANARY, RIVAL])
            case.add([real, rating(real.sequence, 999, version, float(version != hostile_to))])
            verdict = decide(case.report(), SETTINGS, waited_s=0, next_is_ready=False)
            if verdict is not Verdict.WAIT:
                break
        verdicts[verdict] += 1
    assert verdicts[wrong] <= 10, verdicts


def test_one_rater_alone_decides_nothing() -> None:
    alone = Case(CANARY, RIVAL, BEGAN, SETTINGS)
    alone.add([rating(i, i % 40, RIVAL, 1.0) for i in range(1, 400)])
    alone.add([rating(400 + i, 7, CANARY, 0.0) for i in range(1000)])
    assert alone.report().evidence_against < 1 / SETTINGS.false_rollback_rate


def test_the_wealth_is_the_product_of_the_bets() -> None:
    """Against a plain reference: pairs one to one, every rating of another rater."""
    margin, threshold = 0.1, 20.0
    chosen = random.Random(3)
    evidence = Evidence(sign=1, shift=margin, expected=margin, threshold=threshold, rater_share=0.49)
    pairs = [(float(chosen.random() < 0.7), float(chosen.random() < 0.5)) for _ in range(60)]
    xs: list[float] = []
    wealth = 1.0
    for index, (ours, theirs) in enumerate(pairs):
        evidence.add_control(f"b{index}", theirs)
        evidence.add_canary(f"a{index}", ours)
        n = 10 + len(xs)
        mean = (10 * margin + sum(xs)) / n
        second = (10 * (0.3 + margin**2) + sum(x * x for x in xs)) / n
        largest_loss = 1 - threshold**-0.49  # what one rater may cost
        stake = min(max(0.0, mean / second), largest_loss / (1 - margin))
        xs.append(ours - theirs + margin)
        wealth *= 1 + stake * xs[-1]
        assert evidence.wealth == pytest.approx(wealth, rel=1e-9)
    assert evidence.wealth > 1


def test_a_rating_waits_for_one_to_compare_it_with() -> None:
    evidence = Evidence(sign=-1, shift=0.0, expected=0.1, threshold=20, rater_share=0.3)
    evidence.add_canary("a", 0.0)
    assert evidence.wealth == 1.0
    evidence.add_control("b", 1.0)
    assert evidence.wealth > 1.0


def test_only_peoples_ratings_of_the_two_versions_count() -> None:
    case = Case(CANARY, RIVAL, BEGAN, SETTINGS)
    machine = [
        Rating(1, "t/1", source, CANARY, 1.0, "", BEGAN) for source in (FEEDBACK_SOURCE_MODEL, FEEDBACK_SOURCE_IMPLICIT)
    ]
    case.add([*machine, rating(2, 1, CANARY, 1.0, rival="p000009-cccccccc")])
    assert case.report().ratings == 0
    case.add([rating(3, 1, CANARY, 0.75, rival=RIVAL), rating(3, 1, RIVAL, 0.25, rival=CANARY)])
    report = case.report()
    assert (report.ratings, report.mean, report.control_ratings, report.control_mean) == (1, 0.75, 1, 0.25)
    assert case.position == 3


def test_old_ratings_of_the_rival_are_left_out_and_a_rater_counts_once_in_the_mean() -> None:
    case = Case(CANARY, RIVAL, BEGAN, CanarySettings(control_ratings=3))
    case.add(
        [rating(i, i, RIVAL, 0.0, at=BEGAN - 1) for i in range(10)]
        + [rating(10 + i, 50, RIVAL, 1.0, at=BEGAN - 1) for i in range(2)]
        + [rating(20, 60, RIVAL, 1.0)]
    )
    report = case.report()
    assert (report.control_ratings, report.control_raters) == (4, 3)
    assert report.control_mean == pytest.approx(2 / 3)


def report(ratings: int = 40, mean: float = 0.6, *, good: float = 1.0, bad: float = 1.0) -> Report:
    return Report(ratings, ratings, mean, 100, 30, 0.6, good, bad)


@pytest.mark.parametrize(
    ("seen", "waited_s", "next_is_ready", "undecided", "verdict"),
    [
        (report(bad=20.5), 0, False, "promote", Verdict.ROLLED_BACK),
        (report(good=20.5), 0, False, "promote", Verdict.PROMOTED),
        (report(), 0, False, "promote", Verdict.WAIT),
        (report(), 0, True, "promote", Verdict.TRUSTED),
        (report(ratings=5), 0, True, "promote", Verdict.WAIT),
        (report(ratings=0), 300, False, "promote", Verdict.TRUSTED),
        (report(mean=0.45, bad=3.0), 0, True, "promote", Verdict.WAIT),
        (report(mean=0.45, bad=3.0), 300, True, "promote", Verdict.DISTRUSTED),
        (report(mean=0.45, bad=1.5), 300, True, "promote", Verdict.TRUSTED),
        (report(), 0, True, "roll_back", Verdict.WAIT),
        (report(), 300, True, "roll_back", Verdict.DISTRUSTED),
        (report(good=20.5), 300, True, "roll_back", Verdict.PROMOTED),
    ],
)
def test_the_rule(seen: Report, waited_s: float, next_is_ready: bool, undecided: str, verdict: Verdict) -> None:
    settings = CanarySettings.model_validate({"undecided": undecided})
    assert decide(seen, settings, waited_s=waited_s, next_is_ready=next_is_ready) is verdict


def test_every_figure_is_a_number_that_json_holds() -> None:
    case = Case(CANARY, RIVAL, BEGAN, SETTINGS)
    assert all(math.isfinite(figure) for figure in case.report().figures.values())
    case.add([rating(i, i % 60, RIVAL, 1.0) for i in range(1, 4000)])
    case.add([rating(4000 + i, i % 60, CANARY, 0.0) for i in range(4000)])
    figures = case.report().figures
    assert all(math.isfinite(figure) for figure in figures.values())
    assert figures["canary_evidence_against"] > 20 > 1 > figures["canary_evidence_for"]
