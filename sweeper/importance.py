"""Which parameters decide how good a trial is: PED-ANOVA (Watanabe et al. 2023), by Optuna's evaluator."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweeper.results import Results
from sweeper.space import distributions

if TYPE_CHECKING:
    import optuna

FEWEST = 5
"""Complete trials below which nothing can be said; also how many the best part should at least have."""
TOP_SHARE, LARGEST_SHARE = 0.1, 0.5


def top_share(complete: int) -> float:
    """Which part of so many trials counts as the best: a tenth, or what holds five of them, at most half."""
    return min(LARGEST_SHARE, max(TOP_SHARE, FEWEST / complete))


def importances(results: Results) -> dict[str, float]:
    """The part that each searched parameter has in a trial being among the best, the largest first.

    The parts sum to 1. Empty where there are too few complete trials, or nothing tells them apart. Of several
    objectives the front counts.
    """
    complete = results.complete
    if len(complete) < FEWEST:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # experimental, and what it thinks of few trials: that is said beside it
        evaluator = PedAnovaImportanceEvaluator(target_quantile=top_share(len(complete)))
        # Not normalized by Optuna, which makes equal parts of what nothing tells apart.
        found = get_param_importances(_as_optuna(results), evaluator=evaluator, normalize=False)
    total = sum(found.values())
    if not total > 0.0:
        return {}
    return dict(sorted(((k, v / total) for k, v in found.items()), key=lambda item: -item[1]))


def _as_optuna(results: Results) -> optuna.Study:
    """The complete trials as an Optuna study in memory."""
    import optuna

    known: Mapping[str, Any] = distributions(results.study)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            directions=["maximize" if goal.maximize else "minimize" for goal in results.goals]
        )
    finally:
        optuna.logging.set_verbosity(before)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=dict(trial.params),
                distributions={name: known[name] for name in trial.params},
                values=[value for goal in results.goals if (value := goal.value(trial)) is not None],
            )
            for trial in results.complete
        ]
    )
    return study
