"""A canary's trial in a sentence, from the trainer's figures."""

from collections.abc import Mapping

from console.scrape import Samples, by_label, total

BOTH = ("canary", "control")


def trial_figures(samples: Samples) -> dict[str, float]:
    """What the trainer tells of a version on trial; empty while none is."""
    if not total(samples, "foldback_canary_on_trial"):
        return {}
    ratings = by_label(samples, "foldback_canary_ratings", "arm")
    means = by_label(samples, "foldback_canary_rating_mean_ratio", "arm")
    evidence = by_label(samples, "foldback_canary_evidence", "direction")
    return (
        {f"trial_ratings_{arm}": count for arm, count in ratings.items()}
        | {f"trial_mean_{arm}": mean for arm, mean in means.items()}
        | {f"trial_evidence_{direction}": wealth for direction, wealth in evidence.items()}
    )


def trial(figures: Mapping[str, float]) -> str:
    """What users have said of the canary so far, against the active version; "" while none is on trial."""
    if "trial_ratings_canary" not in figures:
        return ""
    canary, control = (
        f"{figures[f'trial_mean_{arm}']:.0%} of {figures[f'trial_ratings_{arm}']:.0f}"
        if figures.get(f"trial_ratings_{arm}") and f"trial_mean_{arm}" in figures
        else "none yet"
        for arm in BOTH
    )
    for_it, against = (figures.get(f"trial_evidence_{direction}", 1.0) for direction in ("for", "against"))
    return f"rated good: {canary}; the active version: {control}; evidence {for_it:.1f} for it, {against:.1f} against"
