"""`trainer.reward:` the model of what raters prefer."""

from pydantic import Field

from settings.section import Section


class RewardSettings(Section):
    members: int = Field(default=5, ge=2)
    """Heads of the ensemble. Their disagreement is the model's uncertainty."""
    taste_scales: tuple[tuple[float, float, float], ...] = Field(
        default=((1.0, 2.0, 0.0), (1.0, 4.0, 0.0), (1.0, 2.0, 1.0), (0.1, 0.3, 0.0), (0.1, 0.3, 1.0)), min_length=1
    )
    """Standard deviations, in nats, of what may be said of an answer's score before anything is learned: by its words'
    embeddings, in which like words are alike; by each word itself, by which tastes for rare ones are learned; and by
    its style (letters a word, words a sentence, punctuation). Larger learns such a taste faster and overfits sooner.
    The first triple is in use until another predicts better in cross-validation, by twice the standard error; that is
    seen to whenever the judgements have doubled."""
    tuning_judgements: int = Field(default=48, ge=2)
    """Judgements before such a choice is made: until then it is the first of `taste_scales`."""
    meaning_scale: float = Field(default=0.3, ge=0)
    """The same for the trunk's middle layer, over the answer."""
    closing_scale: float = Field(default=0.3, ge=0)
    """The same for the middle layer at the answer's last token."""
    length_scale: float = Field(default=1.0, ge=0)
    """The same for the logarithm of its length."""
    uncertainty_penalty: float = Field(default=0.5, ge=0)
    """λ: the reward is the members' mean score less λ times their standard deviation; in units of the latter's mean
    over the reference's samples, where that is above 1: members who know little yet disagree about everything."""
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
    reliability_floor: float = Field(default=0.1, gt=0, le=1)
    """Least weight of a rater who contradicts what everybody else's judgements predict. 1: all are believed alike."""
    reliability_prior: float = Field(default=8.0, gt=2)
    """Judgements that a rater's good name is worth at the start: with many fewer, nobody counts for less."""
    reliability_raters: int = Field(default=5, ge=3)
    """While there are fewer raters, there is no majority to be measured by, and all count in full."""

    heldout_least: int = Field(default=16, ge=1)
    """While fewer judgements are held out, chance would rule: new heads are always promoted. While fewer of them tell
    answers apart, readiness is cross-validated over all judgements."""
    heldout_capacity: int = Field(default=512, ge=1)
    """Held-out judgements that are kept; the oldest leave."""
    replay_capacity: int = Field(default=2048, ge=2)
    """Judgements that are kept to train on. When full, new ones take at most half the places in an update."""
    feature_cache: int = Field(default=4096, ge=1)
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

    def weight_of(self, kind: str) -> float:
        """What a judgement of this kind counts against one choice of a ranking."""
        weights = {
            "thumbs": self.thumbs_weight,
            "rating": self.rating_weight,
            "ranking": 1.0,
            "demonstration": self.demonstration_weight,
        }
        return weights[kind]
