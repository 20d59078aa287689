"""The dashboard's rows on feedback, on what is learned from it and on the versions that come of it."""

from collections.abc import Mapping

from scripts.dashboard_panel import RATE, Panel, by, none_is_zero, quantiles

LEARNING: Mapping[str, tuple[Panel, ...]] = {
    "Feedback": (
        Panel(
            "Funnel",
            "Served → rated → joined → learned, and what left on the way. Counts of the preference store.",
            "short",
            by("foldback_feedback_funnel", "stage"),
            kind="bargauge",
        ),
        Panel(
            "Feedback submitted",
            "By kind and result.",
            "reqps",
            {"{{kind}} {{result}}": (f"sum by (kind, result) (rate(foldback_feedback_received_total[{RATE}]))")},
        ),
        Panel(
            "Feedback delay",
            "From serving an answer to feedback on it.",
            "s",
            quantiles("foldback_feedback_delay_seconds", 0.5, 0.95),
        ),
        Panel(
            "Thumbs up",
            "Share of the last hour's thumbs.",
            "percentunit",
            {
                "up": 'sum(increase(foldback_thumbs_total{direction="up"}[1h]))'
                " / sum(increase(foldback_thumbs_total[1h]))"
            },
            maximum=1,
        ),
        Panel(
            "Raters",
            "Of the latest 1000 judgements that count: how many there are, and what the busiest gave.",
            "short",
            {"raters": "max(foldback_raters)"},
        ),
        Panel(
            "Busiest rater",
            "Share of these judgements; and feedback refused a second because a rater sends too much.",
            "percentunit",
            {
                "share": "max(foldback_rater_largest_share_ratio)",
                "refused": f"sum(rate(foldback_feedback_rate_limited_total[{RATE}]))",
            },
        ),
    ),
    "Learning": (
        Panel(
            "Reward",
            "Mean conservative reward, in deviations of the reference's answers.",
            "short",
            by("foldback_reward_mean", "slot"),
        ),
        Panel(
            "KL to the reference",
            "A response, in nats, and where training stops.",
            "short",
            {"KL": "max(foldback_ppo_kl_nats)", "bound": "max(foldback_ppo_kl_bound_nats)"},
        ),
        Panel(
            "Reward model on held-out pairs",
            "How often it orders as the rater did; how far its confidence is off.",
            "percentunit",
            {
                "right": 'max(foldback_reward_model_accuracy_ratio{split="held_out"})',
                "right by 'the longer wins'": "max(foldback_reward_model_length_rule_ratio)",
                "calibration error": 'max(foldback_reward_model_calibration_error_ratio{split="held_out"})',
            },
            maximum=1,
        ),
        Panel(
            "Policy's entropy",
            "A token, in nats. A collapse means that answers become one answer.",
            "short",
            {"entropy": "max(foldback_ppo_entropy_nats)", "bound": "max(foldback_ppo_entropy_bound_nats)"},
        ),
        Panel(
            "PPO: clipped, stale, explained",
            "Shares of tokens clipped and of tokens from older versions; how much of the returns the value head knows.",
            "percentunit",
            {
                "clipped": "max(foldback_ppo_clip_ratio)",
                "stale": "max(foldback_ppo_stale_ratio)",
                "explained": "max(foldback_value_explained_variance_ratio)",
            },
        ),
        Panel(
            "PPO: losses",
            "Of policy and value, of users' edits and favourite answers; a gradient's norm before it is cut.",
            "short",
            {
                "policy": "max(foldback_ppo_policy_loss)",
                "value": "max(foldback_value_loss)",
                "gradient": "max(foldback_ppo_gradient_norm)",
                "demonstrations": "max(foldback_ppo_demonstration_loss_nats)",
                "favourites": "max(foldback_ppo_favourite_loss_nats)",
            },
        ),
        Panel(
            "PPO: step and sampler",
            "How far an update moves the policy; what a nat of KL costs; how far off the engine's logprobs are.",
            "short",
            {
                "step KL": "max(foldback_ppo_step_kl_nats)",
                "KL coefficient": "max(foldback_ppo_kl_coefficient)",
                "sampler gap": "max(foldback_ppo_sampler_gap_nats)",
                "importance weight": "max(foldback_ppo_importance_weight)",
            },
        ),
        Panel(
            "Length of answers",
            "Tokens of a rollout's answer.",
            "short",
            {"tokens": "max(foldback_ppo_response_tokens)"},
        ),
        Panel(
            "Answers that end by themselves",
            "Share of the rollouts' answers; the others were cut at trainer.max_new_tokens.",
            "percentunit",
            {"ended": "max(foldback_ppo_stopped_ratio)"},
            maximum=1,
        ),
        Panel(
            "Judgements of the reward model",
            "Learned from and held out; 1 while it may steer the policy; how often people came to like something else.",
            "short",
            {
                "{{split}}": "max by (split) (foldback_reward_model_judgements)",
                "ready": "max(foldback_reward_model_ready)",
                "changes of taste": "max(foldback_taste_changes_total)",
            },
        ),
        Panel(
            "Reward model's loss",
            "Nats a held-out judgement; a coin costs 0.69 on a pair.",
            "short",
            {"loss": "max(foldback_reward_model_loss_nats)"},
        ),
        Panel(
            "Time of a step",
            "Mean by phase.",
            "s",
            {
                "{{phase}}": f"sum by (phase) (rate(foldback_train_step_duration_seconds_sum[{RATE}]))"
                f" / sum by (phase) (rate(foldback_train_step_duration_seconds_count[{RATE}]) > 0)"
            },
        ),
        Panel(
            "Gate",
            "Candidates by verdict, last hour.",
            "short",
            {"{{verdict}}": "sum by (verdict) (increase(foldback_gate_decisions_total[1h]))"},
        ),
        Panel(
            "Last candidate on held-out prompts",
            "Wins against the active version; distinct bigrams and their bound; length over the active version's.",
            "percentunit",
            {
                "win rate": "max(foldback_gate_win_rate_ratio)",
                "distinct bigrams": "max(foldback_gate_distinct_bigrams_ratio)",
                "their bound": "max(foldback_gate_distinct_bigrams_bound_ratio)",
                "length": "max(foldback_gate_length_ratio)",
            },
        ),
        Panel(
            "Last candidate beside the base model",
            "Length; perplexity of the base's answers (over 1: forgotten); how far a phrase has spread (a magic word).",
            "short",
            {
                "length": "max(foldback_gate_reference_length_ratio)",
                "perplexity": "max(foldback_gate_base_perplexity_ratio)",
                "phrase": "max(foldback_gate_phrase_growth_ratio)",
            },
        ),
        Panel(
            "Rules",
            "Mean score of the rollouts' answers by rule of rules.yaml: 1 kept, 0 broken. 0 where there are none.",
            "short",
            {"{{rule}}": none_is_zero("max by (rule) (foldback_rule_score)")},
        ),
        Panel(
            "Checks that candidates failed",
            "Last hour.",
            "short",
            {"{{check}}": none_is_zero("sum by (check) (increase(foldback_gate_failed_checks_total[1h]))")},
        ),
        Panel(
            "Staleness of rollouts",
            "Versions between a rollout's policy and the one that is trained.",
            "short",
            quantiles("foldback_sample_staleness_versions", 0.5, 0.95),
        ),
        Panel(
            "Work left",
            "PPO iterations that the judgements so far still allow; at 0, how many more judgements it waits for.",
            "short",
            {
                "iterations": "max(foldback_ppo_budget_iterations)",
                "waits for judgements": "max(foldback_judgements_awaited)",
                "paused": "max(foldback_training_paused)",
            },
        ),
    ),
    "Policies": (
        Panel(
            "Serving",
            "Replicas by the version that they serve.",
            "short",
            {"{{version}}": 'count by (version) (foldback_policy_info{slot="active"})'},
        ),
        Panel(
            "Swaps",
            "By result, last hour: anything but served wants a look.",
            "short",
            {"{{result}}": "sum by (result) (increase(foldback_weight_swaps_total[1h]))"},
        ),
        Panel(
            "Duration of a swap",
            "From its start to the canary check's end.",
            "s",
            quantiles("foldback_weight_swap_duration_seconds", 0.5, 0.95),
        ),
        Panel("Age of the version", "Since it was published.", "s", {"age": "max(foldback_policy_age_seconds)"}),
        Panel(
            "Replicas behind",
            "Promotions that a replica has not followed.",
            "short",
            {"{{instance}}": "foldback_policy_skew_versions"},
        ),
        Panel(
            "Canary: ratings",
            "That the trial, or the watch after it, rests on; 1 while a version is on trial.",
            "short",
            {
                "{{arm}}": "max by (arm) (foldback_canary_ratings)",
                "on trial": "max(foldback_canary_on_trial)",
            },
        ),
        Panel(
            "Canary: what people say",
            "Mean rating from 0 to 1, each rater counted once.",
            "percentunit",
            by("foldback_canary_rating_mean_ratio", "arm"),
            maximum=1,
        ),
        Panel(
            "Canary: evidence",
            "That it is as good (for) or worse (against); it decides at 1 / error rate, 20 by default.",
            "short",
            by("foldback_canary_evidence", "direction"),
        ),
        Panel(
            "Canaries decided",
            "Last hour, by result.",
            "short",
            {"{{result}}": none_is_zero("sum by (result) (increase(foldback_canary_decisions_total[1h]))")},
        ),
        Panel(
            "Registry answers",
            "1 while it does.",
            "bool",
            {"{{job}} {{instance}}": "foldback_registry_up"},
        ),
        Panel(
            "Newest checkpoint's age",
            "How much work a crash of the trainer would cost.",
            "s",
            {"age": "time() - max(foldback_checkpoint_timestamp_seconds)"},
        ),
    ),
}
