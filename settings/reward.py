"""`trainer.reward:` the model of what raters prefer."""

from pydantic import Field

from settings.section import Section


class RewardSettings(Section):
    members: int = Field(default=5, ge=2)
    """Heads of the ensemble. Their disagreement is the model's uncertainty."""
    words_scale: float = Field(default=0.6, ge=0)
    """Standard deviation, in nats, of what an answer's words are taken to say of its score before anything is learned.
    Larger learns faster and overfits sooner."""
    meaning_scale: float = Field(default=0.3, ge=0)
    """The same for the trunk's middle layer."""
    length_scale: float = Field(default=1.0, ge=0)
    """The same for the logarithm of its length."""
    uncertainty_penalty: float = Field(default=0.5, ge=0)
    """λ: the reward is the members' mean score less λ times their standard deviation."""
    bound: float = Field(default=4.0, gt=0)
    """The mean score saturates towards ± this many deviations of the reference's samples before the penalty is taken
    off: far beyond what people have judged, more of the same earns nothing and costs its uncertainty."""

    thumbs_weight: float = Field(default=0.3, ge=0)
    """What a thumb counts against one choice of a ranking: thumbs agree with rankings on two pairs of three only."""
    rating_weight: float = Field(default=0.5, ge=0)
    """What a rating counts."""
    demonstration_weight: float = Field(default=1.0, ge=0)
    """What the preference of a user's edit over the original counts."""
    rater_bias_scale: float = Field(default=1.0, gt=0)
    """Standard deviation, in nats, of how easily raters are pleased; each one's bias is shrunk to zero by it."""
    rater_floor: int = Field(default=32, ge=1)
    """Judgements that count in full whoever the rater is."""
    rater_ratio: float = Field(default=3.0, ge=1)
    """Beyond the floor a rater counts for at most this many times the judgements of the median rater; annotators are
    not capped."""

    heldout_least: int = Field(default=16, ge=1)
    """While fewer judgements are held out, chance would rule: readiness is then cross-validated over all judgements,
    and new heads are always promoted."""
    heldout_capacity: int = Field(default=512, ge=1)
    """Held-out judgements that are kept; the oldest leave."""
    replay_capacity: int = Field(default=2048, ge=2)
    """Judgements that are kept to train on. When full, new ones take at most half the places in an update."""
    feature_cache: int = Field(default=8192, ge=1)
    """Answers whose features are kept in memory."""

    prompt_tokens: int = Field(default=512, ge=1)
    """A judged answer is seen after this many last tokens of its prompt."""
    response_tokens: int = Field(default=512, ge=1)
    """A judged answer is seen up to this many first tokens."""

    max_iterations: int = Field(default=60, ge=1)
    """L-BFGS iterations of one update; it starts from the promoted heads, so most updates need few."""
    ready_judgements: int = Field(default=16, ge=1)
    """Judgements to have learned from before the reward may steer the policy."""
    promotion_slack: float = Field(default=1.0, ge=0)
    """New heads are refused when their held-out loss is higher than the promoted ones' by more than this many
    standard errors of the difference."""
