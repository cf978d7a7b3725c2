"""What ``confirm`` trained, as runs in MLflow: one for each training, and one for each configuration.

A training shows the study's metric, and that of the test rows, and no ``objective``, so that it stands in no
chart of the search. A configuration's run has the test metric by seed, its mean, its deviation and its
interval. Both are children of the study's run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper import space
from sweeper.finalists import HEAD, LATENCY, is_read, members, parse_label
from sweeper.ledger import StudyRow, TrialView
from sweeper.ledger.confirmation import CONFIRM, FULL
from sweeper.ledger.schema import ENDED
from sweeper.study import Study
from sweeper.tracking import picture
from sweeper.tracking.picture import Point
from sweeper.tracking.views import OBJECTIVE, STATE_TAG

KIND = "confirmed"
"""The kind of the run of a configuration; those of its trainings are ``confirm`` and ``full``."""


@dataclass(frozen=True)
class Confirmed:
    """The run of one configuration.

    Args:
        name: such as ``confirmed trial-0007``.
        began_at, ended_at: of its trainings, in seconds since 1970.
    """

    name: str
    began_at: float
    ended_at: float
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: Sequence[Point]

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from other child runs, as ``picture.trial_key`` does."""
        return self.tags[picture.PLACE_TAG], self.tags[picture.TRIAL_TAG]


def belongs(view: TrialView) -> bool:
    """Whether a place is one of ``confirm``'s."""
    return view.kind in (CONFIRM, FULL)


def is_over(views: Iterable[TrialView]) -> bool:
    """Whether all that workers train to confirm a study has ended, and was read on the test rows.

    Full fine-tuning comes last, or never where it was interrupted: what there is of it is shown.
    """
    trained = [view for view in views if view.kind == CONFIRM]
    tested = [is_read(view) for view in trained if view.state == "complete"]
    return any(tested) and all(tested) and all(view.state in ENDED for view in trained)


def tags_of(study: Study, view: TrialView) -> dict[str, str]:
    """The tags of a trial's run, or of a training's, whose seed it shares with what it is compared with."""
    tags = picture.trial_tags(study, view)
    if belongs(view):
        _, seed = parse_label(str(view.label))
        tags["sweeper.trial_seed"] = str(space.trial_seed(study, f"confirm-{seed}"))
    return tags


def params_of(study: Study, view: TrialView) -> dict[str, str]:
    """The parameters of a trial's run, or of a training's: without an adapter only how it was trained."""
    if view.kind == CONFIRM and parse_label(str(view.label))[0] != HEAD:
        return picture.configuration_params(study, view.params)
    return picture.trial_params(study, view)


def points_of(view: TrialView, points: Iterable[Point]) -> list[Point]:
    """What is shown of some points: of a training all but its objective."""
    return [point for point in points if point.key != OBJECTIVE or not belongs(view)]


def confirmed(
    row: StudyRow, study: Study, views: Sequence[TrialView], said: Mapping[str, Any]
) -> list[Confirmed]:
    """A run for each configuration that was confirmed.

    Args:
        views: of the trainings.
        said: what ``finalists.verdict`` says of them.
    """
    found = {one["what"]: one for one in said["finalists"]}
    beside = (said["default"], said["head"], said["full"])
    found |= {one["what"]: one for one in beside if one is not None and one["what"] not in found}
    of = members(views, said["metric"])
    return [_confirmed(row, study, of[what], one, said) for what, one in found.items()]


def _confirmed(
    row: StudyRow, study: Study, views: Sequence[TrialView], one: Mapping[str, Any], said: Mapping[str, Any]
) -> Confirmed:
    metric, first = said["metric"], views[0]
    ended_at = max(view.ended_at or 0.0 for view in views)
    tags = {
        picture.PLACE_TAG: KIND,
        picture.TRIAL_TAG: one["what"],
        picture.KIND_TAG: KIND,
        STATE_TAG: _standing(one, said),
        "sweeper.seeds": str(one["seeds"]),
    }
    points = [*picture.size_points(row, first)]
    for view in views:
        seed = int(parse_label(str(view.label))[1])
        for key in (f"test/{metric}", metric):
            points.append(Point(_key(metric, key), view.metrics[key], view.ended_at or 0.0, seed))
    whole = {
        f"{split}/{metric}_{name}": value
        for split in ("test", "validation")
        for name, value in _spread(one[split])
    }
    whole |= {LATENCY: one[LATENCY]}
    points += [Point(key, value, ended_at, one["seeds"]) for key, value in whole.items() if value is not None]
    began_at = min(view.started_at or row.created_at for view in views)
    return Confirmed(f"confirmed {one['name']}", began_at, ended_at, tags, params_of(study, first), points)


def _key(metric: str, key: str) -> str:
    return f"validation/{metric}" if key == metric else key


def _spread(found: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    low, high = found["interval"] or (None, None)
    return [("mean", found["mean"]), ("sd", found["sd"]), ("low", low), ("high", high)]


def _standing(one: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    if one["name"] == said["winner"]["name"]:
        return "winner"
    if one["name"] in said["alike"]:
        return "alike"
    names = [finalist["name"] for finalist in said["finalists"]]
    return "finalist" if one["name"] in names else "reference"
