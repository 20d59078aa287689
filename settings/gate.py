"""`trainer.gate:` what a candidate has to show before a user sees it."""

from pydantic import Field

from settings.section import Section


class GateSettings(Section):
    """What a candidate has to show on held-out prompts before a user sees it."""

    prompts: int = Field(default=28, ge=4, le=256)
    """Held-out prompts that candidate and active policy both answer."""
    max_new_tokens: int = Field(default=48, ge=1)
    """Tokens of each of these answers."""
    max_kl_nats: float = Field(default=15.0, gt=0)
    """Mean KL to the reference a response, at most: a candidate beyond it is led back to here before it is judged."""
    min_win_rate: float = Field(default=0.5, gt=0, lt=1)
    """The candidate's answers must be shown to win this share against the active policy's, by the conservative reward:
    of 28 prompts 17. Less would do for one candidate, but one follows another: where a policy could rise no further,
    some that were slightly worse got through a lower bound, and it slipped back step by step. One that wins seven in
    ten passes nine times in ten, one that is as good one time in six, one that wins four in ten one time in fifty."""
    confidence: float = Field(default=0.8, gt=0.5, lt=1)
    """One-sided confidence with which the win rate must be shown (or refuted)."""
    min_length_ratio: float = Field(default=0.4, ge=0, le=1)
    """Mean answer length over the active policy's, at least."""
    max_length_ratio: float = Field(default=2.5, ge=1)
    """Mean answer length over the active policy's, at most."""
    min_distinct_2: float = Field(default=0.6, ge=0, le=1)
    """Distinct bigrams over bigrams of an answer, on average: less is repetition."""
    min_entropy_nats: float = Field(default=0.1, ge=0)
    """Mean entropy a token: less, and the policy has collapsed to single answers."""

    min_reference_length_ratio: float = Field(default=0.1, ge=0, le=1)
    """Mean answer length over the base model's, at least: small steps from version to version do not add up past it."""
    max_reference_length_ratio: float = Field(default=3.0, ge=1)
    """Mean answer length over the base model's, at most."""
    min_reference_distinct_2: float = Field(default=0.88, ge=0, lt=1)
    """Distinct pairs of words in all answers together, over the base model's, at least: a candidate that says the same
    to everybody is led back to here before it is judged. It falls with the number of answers: 0.94, 0.83 and 0.65 here
    were 0.9, 0.74 and 0.54 of 128 answers."""
    max_phrase_growth: float = Field(default=0.6, gt=0, le=1)
    """No phrase may stand in so much greater a share of the answers than of the base model's: a magic phrase, found to
    please whatever was asked, ends here. 1: any may."""
    phrase_tokens: int = Field(default=4, ge=2)
    """Length of such a phrase, at least half of it words: what is shorter is style (a greeting, a question at the end),
    and a list's colon, line break and number are form."""
    max_base_perplexity: float = Field(default=1.3, ge=1)
    """Perplexity of the base model's own answers under the candidate over that under the base, at most: beyond, it has
    forgotten how to speak, and is led back to here before it is judged. On questions of users, which is where it was to
    change; on others it is nearer to 1: 1.2 and 1.6 here were 1.06 and 1.20 there, at most 1.4 was 1.16."""
    max_rule_growth: float = Field(default=0.1, ge=0, lt=1)
    """Of rules with a veto: the share of answers that break one may be shown, at `confidence`, to be higher than the
    active version's or the base model's by no more than this."""
    fresh_prompts_every: int = Field(default=8, ge=1)
    """Gates that ask the same prompts, so that the active version's answers need not be drawn again; then others."""
