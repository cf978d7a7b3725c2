"""What confirms a study, and what came of it: means, intervals, and which finalists cannot be told apart.

Everything here is computed from the ledger's rows. The finalists are compared by the objective on the
validation rows under seeds that the search has not seen; the test rows decide nothing, so that what they say
of the winner is what to expect.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from sweeper.metrics import RANGES

if TYPE_CHECKING:
    from sweeper.ledger import Ledger, TrialView

DEFAULT, HEAD, FULL = "default", "head", "full"
"""What a label says where it is no finalist's number: what the finalists are compared with."""
_NAMES = {DEFAULT: "default configuration", HEAD: "head alone", FULL: "full fine-tuning"}
LEVEL = 0.05
METHOD = "Welch's t-test, two-sided, on the validation objective, Holm's correction at 5 %"
LATENCY = "latency_ms"


def label_of(what: int | str, seed: int | str) -> str:
    """``confirm-0007-3``: trial 7 under the third seed; ``confirm-head-3``: the head alone."""
    named = f"{what:04d}" if isinstance(what, int) else what
    return f"confirm-{named}-{seed}"


def parse_label(label: str) -> tuple[str, str]:
    """What is trained and the seed, of a label."""
    _, what, seed = label.split("-", 2)
    return what, seed


@dataclass(frozen=True)
class Group:
    """One configuration under several seeds.

    Args:
        what: ``0007`` for a finalist, ``default``, ``head`` or ``full``.
        parameters: trained ones.
        validation: the objective on the validation rows, a seed each; ``test``: on the test rows.
        latency_ms: of one text alone, the median; None where it was not measured.
        within: where the metric lies.
    """

    what: str
    params: Mapping[str, Any]
    parameters: int
    percent: float | None
    validation: tuple[float, ...]
    test: tuple[float, ...]
    latency_ms: float | None
    within: tuple[float, float] = (-math.inf, math.inf)

    @property
    def number(self) -> int | None:
        """Of the finalist; None for what the finalists are compared with."""
        return int(self.what) if self.what.isdigit() else None

    @property
    def name(self) -> str:
        """``trial-0007``, ``default configuration``, ``head alone`` or ``full fine-tuning``."""
        return _name(self.what)

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "name": self.name,
            "number": self.number,
            "params": dict(self.params),
            "trainable_parameters": self.parameters,
            "trainable_percent": self.percent,
            "seeds": len(self.test),
            "validation": spread(self.validation, self.within),
            "test": spread(self.test, self.within),
            LATENCY: self.latency_ms,
        }


def _name(what: str) -> str:
    return f"trial-{what}" if what.isdigit() else _NAMES[what]


def spread(values: Sequence[float], within: tuple[float, float] = (-math.inf, math.inf)) -> dict[str, Any]:
    """Mean, standard deviation (n - 1) and the 95 % interval of the mean of some values.

    The interval is Student's t. Of a metric that lies within bounds it is taken on the scale of the logit (of
    the logarithm, where there is only a lower bound), by the delta method, and turned back: so it lies within
    them too, and is that of the plain scale where the values are far from the bounds for their spread. Of one
    value there is neither deviation nor interval.

    Args:
        within: the bounds, infinite where there is none.
    """
    found: dict[str, Any] = {"mean": statistics.fmean(values), "sd": None, "interval": None}
    if len(values) > 1:
        from scipy.stats import t

        sd = statistics.stdev(values)
        half = float(t.ppf(0.975, len(values) - 1)) * sd / math.sqrt(len(values))
        found |= {"sd": sd, "interval": _interval(found["mean"], half, *within)}
    return {**found, "values": list(values)}


def _interval(mean: float, half: float, low: float, high: float) -> list[float]:
    if half == 0 or math.isinf(low):
        return [mean - half, mean + half]
    if math.isinf(high):
        factor = math.exp(half / (mean - low))
        return [low + (mean - low) / factor, low + (mean - low) * factor]
    share = (mean - low) / (high - low)  # neither 0 nor 1: the values vary
    logit, half = math.log(share / (1 - share)), half / (high - low) / (share * (1 - share))
    return [low + (high - low) / (1 + math.exp(-end)) for end in (logit - half, logit + half)]


def default_of(trials: Iterable[TrialView]) -> TrialView | None:
    """Trial 0, the default configuration, or where that did not succeed the first like it that did.

    None where it is past a limit, so that it is no trial; of a grid, no place is at position 0 then.

    Args:
        trials: of a study, by number.
    """
    numbered = [view for view in trials if view.number is not None]
    if not numbered or (numbered[0].number, numbered[0].position) != (0, 0):
        return None
    alike = [view for view in numbered if view.configuration == numbered[0].configuration]
    return next((view for view in alike if view.state == "complete"), numbered[0])


def members(views: Iterable[TrialView], metric: str) -> dict[str, list[TrialView]]:
    """The trainings of each configuration that have a test result, in the order that they were asked for."""
    found: dict[str, list[TrialView]] = {}
    for view in views:
        what, seed = parse_label(str(view.label))
        done = view.state == "complete" and {metric, f"test/{metric}"} <= view.metrics.keys()
        if done and seed.isdigit():
            found.setdefault(what, []).append(view)
    return found


def groups(views: Iterable[TrialView], metric: str) -> list[Group]:
    """What was confirmed so far, in the order in which it was asked for."""
    return [
        Group(
            what,
            own[0].params,
            own[0].trainable_parameters or 0,
            own[0].trainable_percent,
            tuple(view.metrics[metric] for view in own),
            tuple(view.metrics[f"test/{metric}"] for view in own),
            next((view.metrics[LATENCY] for view in own if LATENCY in view.metrics), None),
            RANGES[metric],
        )
        for what, own in members(views, metric).items()
    ]


def is_read(view: TrialView) -> bool:
    """Whether what was trained was read on the test rows."""
    return any(key.startswith("test/") for key in view.metrics)


def compared(views: Iterable[TrialView]) -> tuple[list[str], list[str], int]:
    """Who is compared, who waits for it, and under how many seeds: the first so many of each who is compared.

    Behind a ``confirm`` that was not interrupted these are all. Else those are compared, under as many seeds,
    that count most trainings: new finalists, or further seeds, do not count until most of them are there.
    """
    from sweeper.ledger.schema import ENDED

    through: dict[str, set[str]] = {}
    for view in views:
        what, seed = parse_label(str(view.label))
        if what.isdigit():
            done = through.setdefault(what, set())
            if view.state in ENDED and (view.state != "complete" or is_read(view)):
                done.add(seed)
    first = {what: next(n for n in count() if str(n + 1) not in done) for what, done in through.items()}

    def trainings(seeds: int) -> tuple[int, int]:
        members = sum(own >= seeds for own in first.values())
        return seeds * members, members

    seeds = max(first.values(), key=trainings, default=0)
    ready = [what for what, own in first.items() if own >= seeds > 0]
    return ready, [what for what in first if what not in ready], seeds


def p_value(one: Sequence[float], other: Sequence[float]) -> float:
    """Welch's t-test, two-sided. Values that do not vary differ surely, or are the same."""
    if len(one) < 2 or len(other) < 2:
        return 1.0
    if statistics.pvariance(one) == statistics.pvariance(other) == 0:
        return 1.0 if one[0] == other[0] else 0.0
    from scipy.stats import ttest_ind_from_stats  # ttest_ind warns where one of the two does not vary

    first, second = (
        (statistics.fmean(values), statistics.stdev(values), len(values)) for values in (one, other)
    )
    return float(ttest_ind_from_stats(*first, *second, equal_var=False).pvalue)


def alike(finalists: Sequence[Group], maximize: bool) -> list[Group]:
    """The finalist with the best mean on the validation rows, and those that cannot be told from it."""
    sign = 1.0 if maximize else -1.0
    best = max(finalists, key=lambda group: (sign * statistics.fmean(group.validation), -group.parameters))
    others = sorted(
        ((p_value(best.validation, group.validation), group) for group in finalists if group is not best),
        key=lambda pair: pair[0],
    )
    apart: set[str] = set()
    for position, (p, group) in enumerate(others):  # Holm: the smallest first, until one is not small enough
        if p > LEVEL / (len(others) - position):
            break
        apart.add(group.what)
    return [group for group in finalists if group.what not in apart]


def verdict(ledger: Ledger, study: str) -> dict[str, Any] | None:
    """What was confirmed of a study; None if nothing was.

    Finalists are compared under the same seeds, ``compared_seeds`` in number: see :func:`compared`.
    ``finalists``, ``default``, ``head`` and ``full`` hold what was trained anew, under whichever seeds, the
    last three None where that was not. ``failed`` names the finalists that failed or diverged under a seed
    that is compared, ``waiting`` those that still have trainings ahead: neither can win. ``alike`` names
    those of the others that cannot be told apart from the best, and ``winner`` is the smallest of these.
    """
    from sweeper.front import objectives_of

    objective = objectives_of(ledger.study(study).spec)[0]
    views = ledger.confirmations(study)
    found = groups(views, objective["metric"])
    finalists = [group for group in found if group.number is not None]
    names, waiting, seeds = compared(views)
    shared = [label_of(int(what), seed) for what in names for seed in range(1, seeds + 1)]
    ready = groups((view for view in views if view.label in shared), objective["metric"])
    most = max((len(group.validation) for group in ready), default=0)
    if not most:
        return None
    even = [group for group in ready if len(group.validation) == most]
    same = alike(even, objective["direction"] == "maximize")
    smallest = min(same, key=lambda group: (group.parameters, group.number))
    by_name = {group.what: group.to_json() for group in found}
    default = default_of(ledger.trials(study))
    finalist = None if default is None else by_name.get(f"{default.number:04d}")
    return {
        "study": study,
        "metric": objective["metric"],
        "direction": objective["direction"],
        "finalists": [group.to_json() for group in finalists],
        "default": finalist or by_name.get(DEFAULT),
        "head": by_name.get(HEAD),
        "full": by_name.get(FULL),
        "test_used": METHOD,
        "compared_seeds": most,
        "alike": [group.name for group in same],
        "failed": [_name(what) for what in names if what not in {group.what for group in even}],
        "waiting": [_name(what) for what in waiting],
        "winner": by_name[smallest.what],
    }


def preferred(ledger: Ledger, study: str, count: int = 1) -> tuple[list[TrialView], dict[str, Any] | None]:
    """The best trials with the confirmed winner before all others, and the verdict; None without one."""
    views = ledger.best(study, count)
    said = verdict(ledger, study)
    if said is None:
        return views, None
    winner = _winner(ledger, study, said)
    if winner is None or winner.state != "complete":
        return views, said
    rest = [view for view in views if view.configuration != winner.configuration]
    return [winner, *rest][:count], said


def preferred_front(ledger: Ledger, study: str) -> tuple[list[TrialView], dict[str, Any] | None]:
    """The front of several objectives, the confirmed winner before all others, and the verdict."""
    views, said = ledger.front(study), verdict(ledger, study)
    winner = None if said is None else _winner(ledger, study, said)
    if winner is not None:  # a better repeat of it may stand for it on the front
        views = sorted(views, key=lambda view: view.configuration != winner.configuration)
    return views, said


def _winner(ledger: Ledger, study: str, said: Mapping[str, Any]) -> TrialView | None:
    number = said["winner"]["number"]
    return next((view for view in ledger.trials(study) if view.number == number), None)


def best_document(best: TrialView, said: Mapping[str, Any] | None) -> dict[str, Any]:
    """A best trial as scripts read it, with what `confirm` found of the winner, if it was run."""
    return {**best.to_json(), **({"confirmed": said["winner"]} if said else {})}
