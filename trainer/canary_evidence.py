"""Evidence from ratings that may be looked at after every one: betting on the difference of two versions.

Each rating of the canary is set against ratings of the version that it is compared with (the *control*); x is their
difference. The wealth Π (1 + λ x) of a gambler who bets on x > 0 is, where the mean of x is not above 0, a
supermartingale whatever λ is chosen from the past; by Ville's inequality it ever reaches 1/α with probability α at
most. So stopping at any time, for any reason, keeps the error rate.

Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024): the bet λ is the
approximately growth-optimal one of section B.2 (aGRAPA). Ramdas, Grünwald, Vovk and Shafer, "Game-theoretic statistics
and safe anytime-valid inference", Statistical Science 38 (2023): e-processes.
"""

import math
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

_SPREAD = 128
"""A pair takes this share of the control ratings at hand: all at once would leave none for the next."""
_PRIOR_PAIRS, _PRIOR_VARIANCE = 10.0, 0.3
"""What the first bets rest on: so many imagined pairs, of a variance that thumbs have."""
_BOLDEST = 0.75
"""Largest share of the wealth that a single pair may lose."""


@dataclass(slots=True)
class _Control:
    rater: str
    value: float
    used: bool = False


@dataclass(slots=True)
class _Controls:
    """Ratings of the control that wait for a partner: a rater's own come first, then the oldest."""

    by_age: deque[_Control] = field(default_factory=deque)
    by_rater: defaultdict[str, deque[_Control]] = field(default_factory=lambda: defaultdict(deque))
    count: int = 0

    def add(self, rater: str, value: float) -> None:
        control = _Control(rater, value)
        self.by_age.append(control)
        self.by_rater[rater].append(control)
        self.count += 1

    def take(self, rater: str, spent: set[str]) -> list[_Control]:
        """Partners for a rating of `rater`; none of raters that are `spent`. May be empty."""
        wanted = math.ceil(self.count / _SPREAD)
        taken: list[_Control] = []
        for queue in (self.by_rater[rater], self.by_age):
            while queue and len(taken) < wanted:
                control = queue.popleft()
                if control.used:
                    continue
                control.used = True
                self.count -= 1
                if control.rater not in spent:
                    taken.append(control)
        return taken


class Evidence:
    """An e-process against "the mean of x is at most 0", where x = sign · (canary − control) + shift.

    What one rater adds to the logarithm of the wealth, or takes from it, is bounded on each side of the comparison by
    `rater_share` of what decides: a rater who has used that up is not bet on any more. Who rates is known before what
    they say, so the bound on the error rate is kept.

    Args:
        sign: 1: evidence that the canary is better than control − shift. −1: that it is worse than control + shift.
        expected: the mean of x that the first bets expect.
        threshold: the wealth that decides: 1 / error rate.
    """

    def __init__(self, *, sign: int, shift: float, expected: float, threshold: float, rater_share: float) -> None:
        self._sign, self._shift, self._expected = sign, shift, expected
        self._allowance = rater_share * math.log(threshold)
        self._controls = _Controls()
        self._waiting: deque[tuple[str, float]] = deque()
        self._canary_ledger: defaultdict[str, float] = defaultdict(float)
        self._control_ledger: defaultdict[str, float] = defaultdict(float)
        self._spent_canary: set[str] = set()
        self._spent_control: set[str] = set()
        self._pairs = self._sum = self._squares = self._log_wealth = 0.0

    @property
    def wealth(self) -> float:
        """The e-value: under the hypothesis it ever reaches w with probability 1/w at most."""
        return math.exp(min(self._log_wealth, 700.0))

    def add_control(self, rater: str, value: float) -> None:
        """A rating in [0, 1] of the control."""
        self._controls.add(rater, value)
        while self._waiting and self._controls.count:
            self._bet(*self._waiting.popleft())

    def add_canary(self, rater: str, value: float) -> None:
        """A rating in [0, 1] of the canary. Waits for control ratings where there are none left."""
        if self._controls.count:
            self._bet(rater, value)
        else:
            self._waiting.append((rater, value))

    def add_comparison(self, rater: str, won: float) -> None:
        """One rater's ranking of answers of both: the canary's won this share of the comparisons, ties half."""
        if rater not in self._spent_canary and rater not in self._spent_control:
            self._settle(rater, won, {rater: 1.0}, 1 - won)

    def _bet(self, rater: str, value: float) -> None:
        if rater in self._spent_canary:
            return
        controls = self._controls.take(rater, self._spent_control)
        if not controls:
            self._waiting.appendleft((rater, value))
            return
        shares: defaultdict[str, float] = defaultdict(float)
        for control in controls:
            shares[control.rater] += 1 / len(controls)
        self._settle(rater, value, shares, math.fsum(control.value for control in controls) / len(controls))

    def _settle(self, rater: str, value: float, control_shares: Mapping[str, float], control_mean: float) -> None:
        stake = self._stake(rater, control_shares)
        x = self._sign * (value - control_mean) + self._shift
        gain = math.log1p(stake * x)
        self._log_wealth += gain
        self._pairs, self._sum, self._squares = self._pairs + 1, self._sum + x, self._squares + x * x
        self._charge(self._canary_ledger, self._spent_canary, rater, gain)
        for other, share in control_shares.items():
            self._charge(self._control_ledger, self._spent_control, other, gain * share)

    def _stake(self, rater: str, control_shares: Mapping[str, float]) -> float:
        """λ: growth-optimal by the pairs so far, and such that no rater involved can go over their allowance."""
        pairs = _PRIOR_PAIRS + self._pairs
        mean = (_PRIOR_PAIRS * self._expected + self._sum) / pairs
        second_moment = (_PRIOR_PAIRS * (_PRIOR_VARIANCE + self._expected**2) + self._squares) / pairs
        most, least = 1 + self._shift, 1 - self._shift
        stake = min(max(0.0, mean / second_moment), _BOLDEST / least)
        ledgers = [(self._canary_ledger[rater], 1.0)]
        ledgers += [(self._control_ledger[other], share) for other, share in control_shares.items()]
        for balance, share in ledgers:
            # Beyond 9 the bounds are far above any stake.
            up = math.expm1(min(9.0, (self._allowance - balance) / share)) / most
            down = -math.expm1((-self._allowance - balance) / share) / least
            stake = min(stake, up, down)
        return stake

    def _charge(self, ledger: dict[str, float], spent: set[str], rater: str, gain: float) -> None:
        ledger[rater] += gain
        if abs(ledger[rater]) > 0.99 * self._allowance:
            spent.add(rater)
