"""A study in its store: begun once, joined by any number of workers, refused when it is no longer the same.

session = open_study(load_study("studies/sst2.yaml"), Home.from_environment())
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import SweeperError, UsageError
from sweeper.home import Home
from sweeper.ledger import Ledger, NewStudy, StudyGone, StudyRow, store_file
from sweeper.owner import mark, refuse_others, why_not_ours
from sweeper.provenance import git_commit, versions
from sweeper.study import Study, difference, from_dict, in_order_of, only_budget_grew
from sweeper.study.search import TRAIN_FIELDS

if TYPE_CHECKING:
    from sweeper.data import TaskData
    from sweeper.limits import Limits
    from sweeper.space import Params

REFERENCE_HEAD = "reference-head"
"""The label of the reference that trains the head alone."""
PATIENCE_SECONDS = 120.0
"""How long those who work on a study wait for a store that is gone."""


@dataclass(frozen=True)
class Session:
    """A study that is in the store.

    Args:
        study: as the store has it, its budget included.
        home: where everything is kept.
        ledger: of the store.
        created_at: when it began, by which it is told from another of its name after it was deleted.
    """

    study: Study
    home: Home
    ledger: Ledger
    created_at: float

    @property
    def name(self) -> str:
        return self.study.name

    @property
    def row(self) -> StudyRow:
        """The study's row as it is now. Raises StudyGone once it was deleted, whatever was begun since."""
        row = self.ledger.study(self.name)
        if row.created_at != self.created_at:
            raise StudyGone(self.name)
        return row

    def check_there(self) -> None:
        """Raises StudyGone once the study was deleted."""
        _ = self.row

    def current(self) -> Study:
        """The study as the store has it now: its budget may have grown since."""
        row = self.row
        return from_dict(row.spec, row.path, row.text)


def open_study(study: Study, home: Home) -> Session:
    """Begin a study, or go on with the one of its name.

    Everything is validated before the store is touched: the space against the backbone, the data, the tokens.

    Raises:
        UsageError: the study, its backbone or its data is wrong; or the store has a study of this name that
            differs in more than a larger budget, or whose data or backbone have changed since; or the folders
            of another store's study of this name are here.
        UnreachableError: the store or a hub cannot be reached.
    """
    ledger = Ledger(home.store_url)
    there = _stored(ledger, home, study.name)
    if there is not None:
        check_unchanged(there, study)
    facts = _Facts.of(study, home)
    with alone(home) as check_alone:
        ledger.create()
        store = ledger.store_id()
        refuse_others(home, study.name, store)
        there = ledger.find_study(study.name)
        if there is None:
            _begin(ledger, home, study, facts, store, check_alone)
        else:
            _go_on(ledger, home, there, study, facts)
            mark(home, study.name, store)
        row = ledger.study(study.name)
    # It could be reached: from now on, a server that restarts ends nothing.
    stored = from_dict(row.spec, row.path, row.text)
    return Session(stored, home, Ledger(home.store_url, PATIENCE_SECONDS), row.created_at)


def prepare_store(home: Home) -> str:
    """Make the tables of the store, ours and Optuna's, or bring older ones up to date; returns our version.

    Raises:
        SweeperError: the tables are of a newer version than this program.
        UnreachableError: the store cannot be reached.
    """
    from sweeper.asktell import create_optuna_tables

    ledger = Ledger(home.store_url)
    with alone(home):
        ledger.create()
        create_optuna_tables(home)
    return ledger.version()


def join_study(name: str, home: Home, patience_seconds: float = 0.0) -> Session:
    """A study that the store has, for a worker.

    Raises:
        UsageError: there is none of this name, or its folders here are of another store.
        SweeperError: the store has tables of another version.
        UnreachableError: the store cannot be reached.
    """
    ledger = Ledger(home.store_url, patience_seconds)
    row = ledger.find_study(name)
    if row is None:
        raise UsageError(f"the store has no study {name!r}: `sweeper status` lists those that it has")
    refuse_others(home, name, ledger.store_id())
    return Session(from_dict(row.spec, row.path, row.text), home, ledger, row.created_at)


def load_data(study: Study, home: Home) -> TaskData:
    """The tokenised data of a study, from the cache if it is there.

    Raises:
        UsageError: the data is wrong.
    """
    from sweeper.backbone import load_tokenizer
    from sweeper.data import prepare, read_tables

    return prepare(study, read_tables(study, home.cache), load_tokenizer(study.backbone), home.cache)


def check_same(row: StudyRow, backbone_fingerprint: str, data_fingerprint: str) -> None:
    """Refuse to train on what is no longer what the study began with.

    Raises:
        UsageError: the backbone or the data has changed.
    """
    file = Path(row.path)
    if backbone_fingerprint != row.backbone_fingerprint:
        raise UsageError(
            f"the backbone has changed since the study {row.name} began: its results would not compare. Put "
            "the old one back, or give the study another name",
            file,
        )
    if data_fingerprint != row.data_fingerprint:
        raise UsageError(
            f"the data or the tokenizer has changed since the study {row.name} began: its results would not "
            "compare. Put the old one back, or give the study another name",
            file,
        )


def refuse_unsupported(row: StudyRow, device: str) -> None:
    """Refuse a device that cannot compute in the dtype of a study.

    Raises:
        UsageError: it cannot.
    """
    from sweeper.device import supports

    if not supports(row.dtype, device):
        raise UsageError(
            f"the study {row.name} computes in {row.dtype}, which {device} cannot: use another device"
        )


@dataclass(frozen=True)
class _Facts:
    """What is found of a study before it begins.

    Args:
        first: the parameters of the default configuration.
        points: of a grid, those that get a place; None for another sampler.
        limits: of the study, with its backbone and the width of its heads.
    """

    backbone_fingerprint: str
    data: TaskData
    first: Params
    points: list[Params] | None
    limits: Limits

    @classmethod
    def of(cls, study: Study, home: Home) -> _Facts:
        from adapters.architectures import hidden_size
        from sweeper import space
        from sweeper.backbone import fingerprint, load_config
        from sweeper.corners import check_head, check_space
        from sweeper.frozen import check_frozen
        from sweeper.limits import Limits
        from sweeper.task import check_task, outputs

        config = load_config(study.backbone)
        found = fingerprint(study.backbone)
        check_frozen(study, found)
        check_space(study, config)
        check_task(study, config)
        data = load_data(study, home)
        limits = Limits(study, config, outputs(study.task.kind, data.label_names))
        check_head(limits)
        first = space.default_params(study, hidden_size(config))
        return cls(found, data, first, _points(study, first, limits), limits)


def _points(study: Study, first: Params, limits: Limits) -> list[Params] | None:
    """The points of a grid that get a place of the budget; None for another sampler."""
    from sweeper.sampling import grid_points

    if study.sampler.name != "grid":
        return None
    points = grid_points(study, first, study.budget.trials, limits.allow)
    if not points:
        raise UsageError(
            "no point of the grid is within the limits; raise them, or allow a smaller adapter",
            study.path,
            study.line("limits"),
        )
    return points


def _stored(ledger: Ledger, home: Home, name: str) -> StudyRow | None:
    """The study of this name, without making a store."""
    file = store_file(home.store_url)
    if file is not None and not file.exists():
        return None
    with alone(home):
        ledger.create()
    return ledger.find_study(name)


def check_unchanged(row: StudyRow, study: Study) -> None:
    """Refuse a study file that differs from what its study began with, unless only the budget grew.

    Raises:
        UsageError: with the differences, and the line of the first.
    """
    from sweeper.frozen import check_same_frozen

    old, new = from_dict(row.spec, study.path), study
    check_same_frozen(old, new)
    if only_budget_grew(old, new):
        return
    # What may not change at all comes first: its line is the one to look at.
    changes = sorted(difference(old, new), key=lambda change: change[0].startswith("budget."))
    told = "; ".join(f"{key} was {_shown(before)}, is {_shown(after)}" for key, before, after in changes)
    line = study.line(*changes[0][0].split("."))
    raise UsageError(
        f"the study {row.name} was begun with another file: {told}. Only its budget may grow: take the "
        "changes back, or give the study another name",
        study.path,
        line,
    )


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, ensure_ascii=False)


def _begin(
    ledger: Ledger, home: Home, study: Study, facts: _Facts, store: str, check_alone: Callable[[], None]
) -> None:
    """Write down a new study: Optuna's first, so that whoever finds ours finds both."""
    from sweeper.asktell import create_optuna_study
    from sweeper.backbone import load_backbone, parameter_count
    from sweeper.frozen import keep_frozen
    from sweeper.tasks import task_of
    from sweeper.warmstart import take

    # What an earlier study of this name left is nobody's any more.
    left = home.checkpoints / study.name
    if why_not_ours(left, home, store) is None:
        shutil.rmtree(left, ignore_errors=True)
    language_head = task_of(study.task.kind).language_head
    parameters = parameter_count(load_backbone(study.backbone, language_head=language_head))
    warm = take(ledger, facts.limits).to_dict() if study.warm_start else None
    keep_frozen(study, home.artifacts)
    check_alone()  # that took a while: somebody else may have begun the study, if the lock was lost
    create_optuna_study(home, study, warm)
    mark(home, study.name, store)  # before anybody can join it
    ledger.add_study(
        NewStudy(
            name=study.name,
            spec=study.to_dict(),
            path=str(study.path),
            text=study.text,
            dtype=_dtype(study),
            backbone_fingerprint=facts.backbone_fingerprint,
            backbone_parameters=parameters,
            data_fingerprint=facts.data.fingerprint,
            data_report=facts.data.report,
            label_names=list(facts.data.label_names) if facts.data.label_names is not None else None,
            versions=versions(),
            command=shlex.join(["sweeper", *sys.argv[1:]]),
            git_commit=git_commit(study.path.parent),
        )
    )
    _set_budget(ledger, study, facts)


def _set_budget(ledger: Ledger, study: Study, facts: _Facts) -> None:
    """The places of the budget: trial 0, the head alone, the others; each with its point, if it is a grid."""
    head = {name: value for name, value in facts.first.items() if name in TRAIN_FIELDS}
    ledger.set_budget(study.name, study.budget.trials, facts.first, [(REFERENCE_HEAD, head)], facts.points)


def _go_on(ledger: Ledger, home: Home, row: StudyRow, study: Study, facts: _Facts) -> None:
    """Take over what may change: a larger budget, another folder."""
    check_unchanged(row, study)
    check_same(row, facts.backbone_fingerprint, facts.data.fingerprint)
    # Read again, as a version of before may have written it without keys that have a default now.
    if difference(from_dict(row.spec, study.path), study):
        spec = in_order_of(row.spec, study.to_dict())
        ledger.replace_spec(study.name, spec, str(study.path), study.text)
    elif row.path != str(study.path):
        ledger.move_study(study.name, str(study.path))
    from sweeper.frozen import keep_frozen

    keep_frozen(study, home.artifacts)
    # Also when nothing differs: whoever began or grew the study may have died before its places were there.
    _set_budget(ledger, study, facts)


def _dtype(study: Study) -> str:
    from sweeper.device import devices, measure_dtype

    return study.dtype if study.dtype != "auto" else measure_dtype(devices()[0])


@contextmanager
def alone(home: Home) -> Iterator[Callable[[], None]]:
    """One process at a time makes schemas and studies: Alembic and Optuna cannot do it in two at once.

    Yields:
        what raises an UnreachableError once that is no longer so.
    """
    from sweeper.ledger.database import Database

    file = store_file(home.store_url)
    if file is None:
        with Database(home.store_url).alone() as check_held:
            yield check_held
        return
    from filelock import FileLock

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{file}.lock")
        lock.acquire()
    except OSError as error:
        raise SweeperError(f"the folder of the store cannot be written: {error}") from error
    try:
        yield lambda: None  # a lock on a file is held until the process ends
    finally:
        lock.release()
