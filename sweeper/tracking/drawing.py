"""What is drawn of a study, in which order: the ledger on one side, MLflow's board on the other.

Runs are found by their tags before they are made; what is recorded while we draw has a higher version, and
is drawn the next time; a place is marked as shown last. So an interruption costs nothing but a repetition.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.finalists import verdict
from sweeper.home import Home
from sweeper.ledger import Ledger, StudyRow, TrialView
from sweeper.ledger.schema import ENDED
from sweeper.page import write_report
from sweeper.results import read_results
from sweeper.study import Study, from_dict
from sweeper.study.layerbits import columns
from sweeper.study.search import shared_keys
from sweeper.summary import summarize
from sweeper.tracking import charts, confirmations, note, picture, views
from sweeper.tracking.links import links_of

if TYPE_CHECKING:
    from sweeper.tracking import Board, Run

_FILE_TAG, _FILES_TAG, _REPORT_TAG = "sweeper.study_file", "sweeper.files", "sweeper.terminal"


class Drawing:
    """One study on the board. Made anew after every failure, since then nobody knows what the board has.

    Args:
        home: where the weights are that MLflow gets copies of.
        name: of the study.
        stay: called at each trial, to go on being the one who draws; raises where somebody else is.
    """

    def __init__(
        self, board: Board, home: Home, name: str, ledger: Ledger, stay: Callable[[], object]
    ) -> None:
        self._board = board
        self._home = home
        self._ledger = ledger
        self._stay = stay
        self._name = name
        self._children: dict[tuple[str, str], Run] = {}
        self._last: tuple[Any, ...] | None = None
        self._steps_drawn = 0
        row = ledger.study(name)
        self._experiment_id, self._experiment_tags = board.experiment(row.name)
        self._parent = self._look(row, _study(row))

    def draw(self) -> int:
        """Draw what the board does not show; returns how many trials were drawn."""
        row = self._ledger.study(self._name)
        unshown = set(self._ledger.unshown_places(row.name))
        now = (row.text, row.ended_at, row.ended_because)
        if not unshown and now == self._last:
            return 0
        study, trials = _study(row), self._ledger.trials(row.name)
        confirming = self._ledger.confirmations(row.name)
        changed = [trial for trial in [*trials, *confirming] if trial.place_id in unshown]
        best = next(iter(self._ledger.best(row.name)), None)
        for trial in changed:
            self._draw_trial(row, study, trial, best)
        self._stay()
        self._draw_states(trials, best)
        self._draw_confirmed(row, study, confirming)
        self._draw_study(row, study, trials, confirming)
        if row.ended_at is not None:
            # A server may make a run after its client has given up, when another was made in its stead.
            self._parent = self._look(row, study)
        self._last = now
        return len(changed)

    def _look(self, row: StudyRow, study: Study) -> Run:
        """Find or make the parent run, and see which child runs there are; what is there twice is binned."""
        mine = picture.own_tags(row)
        found = {run.run_id: run for run in self._board.search(self._experiment_id, mine)}
        places = [*self._ledger.trials(row.name), *self._ledger.confirmations(row.name)]
        noted = {row.run_id, *(place.mlflow_run_id for place in places)} - {None}
        if not noted <= set(found):
            # MLflow was lost, or is another one: what the ledger takes for shown is not there.
            self._ledger.hide_all(row.name)
        # Those that were drawn in first: of two of one kind, the other came back from the bin, or too late.
        drawn = noted | {run.run_id for run in self._children.values()}
        runs = sorted(found.values(), key=lambda run: (run.run_id not in drawn, run.run_id))
        self._children.clear()
        parent = next((run for run in runs if picture.PARENT_TAG not in run.tags), None)
        if parent is None:
            tags = {**picture.common_tags(row, study), **mine, picture.KIND_TAG: "study"}
            parent = self._board.create(self._experiment_id, row.name, row.created_at, tags)
        self._ledger.note_drawn(row.name, self._experiment_id, parent.run_id)
        for run in runs:
            key = run.tags.get(picture.PLACE_TAG, ""), run.tags.get(picture.TRIAL_TAG, "")
            if run.tags.get(picture.PARENT_TAG) == parent.run_id and key not in self._children:
                self._children[key] = run
            elif run is not parent:
                self._board.delete(run)
        return parent

    def _draw_trial(
        self,
        row: StudyRow,
        study: Study,
        trial: TrialView,
        best: TrialView | None,
    ) -> None:
        self._drop_others(trial)
        # Those of an attempt that began since are drawn with what is known of it then.
        rows = [row for row in self._ledger.unshown_metrics(trial.place_id) if row.attempt <= trial.attempt]
        waits = confirmations.belongs(trial) and trial.attempt == 0
        if trial.name is not None and not waits:
            run = self._run_of(row, study, trial)
            if not run.has_data:
                self._board.log_data(run, picture.data_sets(row, study))
            tags = {**confirmations.tags_of(study, trial), **picture.state_tags(trial, best)}
            tags |= self._copy_files(run, trial)
            points = [*picture.curve_points(rows), *picture.size_points(row, trial)]
            if trial.state in ENDED:
                points += picture.result_points(trial, self._ledger.metric_rows(trial.place_id))
            points = confirmations.points_of(trial, points)
            self._board.log(run, points, confirmations.params_of(study, trial), tags)
            self._board.set_status(run, picture.STATUS[trial.state], trial.ended_at)
        self._stay()  # if it took too long, another process may have drawn the trial in a run of its own
        self._ledger.mark_metrics_shown([metric.id for metric in rows])
        self._ledger.mark_place_shown(trial.place_id, trial.version)

    def _draw_states(self, trials: Sequence[TrialView], best: TrialView | None) -> None:
        """Say which trial is the best, also of those that did not change themselves."""
        for trial in trials:
            run = self._children.get(picture.trial_key(trial))
            tags = picture.state_tags(trial, best)
            if run is not None and any(run.tags.get(key) != value for key, value in tags.items()):
                self._board.log(run, [], {}, tags)

    def _run_of(self, row: StudyRow, study: Study, trial: TrialView) -> Run:
        key = picture.trial_key(trial)
        run = self._children.get(key)
        if run is None:
            tags = {
                **picture.common_tags(row, study),
                **confirmations.tags_of(study, trial),
                picture.PARENT_TAG: self._parent.run_id,
                **picture.own_tags(row),
            }
            began = trial.started_at or row.created_at
            run = self._board.create(self._experiment_id, trial.name or "", began, tags)
            self._children[key] = run
        if trial.mlflow_run_id != run.run_id:
            self._ledger.note_run(trial.place_id, run.run_id)
        return run

    def _drop_others(self, trial: TrialView) -> None:
        """End the run of a trial that left its place untrained: its configuration was past the limits."""
        place, number = picture.trial_key(trial)
        for key, run in self._children.items():
            if key[0] == place and key[1] != number and run.status not in picture.FINAL:
                self._board.log(run, [], {}, {views.STATE_TAG: "past limits"})
                self._board.set_status(run, "KILLED", None)

    def _copy_files(self, run: Run, trial: TrialView) -> Mapping[str, str]:
        """Give MLflow the weights of a trial that is complete; returns the tag that says which it has."""
        digest = hashlib.sha256("".join(sorted(trial.files.values())).encode()).hexdigest()
        if trial.state != "complete" or not trial.files or run.tags.get(_FILES_TAG) == digest:
            return {}
        files = [self._home.artifacts / name for name in trial.files]
        if not all(file.is_file() for file in files):
            return {}
        for file in files:
            self._board.copy_file(run, file)
        return {_FILES_TAG: digest}

    def _draw_confirmed(self, row: StudyRow, study: Study, confirming: Sequence[TrialView]) -> None:
        """A run for each configuration that was confirmed, once all of them are."""
        said = verdict(self._ledger, row.name) if confirmations.is_over(confirming) else None
        for one in [] if said is None else confirmations.confirmed(row, study, confirming, said):
            self._stay()
            if one.key not in self._children:
                tags = {**picture.common_tags(row, study), **picture.own_tags(row), **one.tags}
                tags[picture.PARENT_TAG] = self._parent.run_id
                self._children[one.key] = self._board.create(
                    self._experiment_id, one.name, one.began_at, tags
                )
            run = self._children[one.key]
            self._board.log(run, one.points, one.params, one.tags)
            self._board.set_status(run, "FINISHED", one.ended_at)

    def _draw_study(
        self, row: StudyRow, study: Study, trials: Sequence[TrialView], confirming: Sequence[TrialView]
    ) -> None:
        board, parent = self._board, self._parent
        is_confirmed = confirmations.is_over(confirming)
        links = links_of(self._ledger, row.name, "")
        if row.ended_at is not None:
            links["report"] = charts.report_link("", self._experiment_id, parent.run_id)
        said = verdict(self._ledger, row.name) if is_confirmed else None
        text = note.note(row, study, summarize(self._ledger, row.name), links, said)
        file_digest = hashlib.sha256(row.text.encode()).hexdigest()
        if parent.tags.get(_FILE_TAG) != file_digest:
            board.copy_text(parent, "study.yaml", row.text)
        if not parent.has_data:
            board.log_data(parent, picture.data_sets(row, study))
        points = picture.progress_points(trials, study.objective.direction)
        points = [point for point in points if point.step > self._steps_drawn]
        tags = {picture.NOTE_TAG: text, _FILE_TAG: file_digest}
        board.log(parent, points, picture.study_params(row, study), tags)
        self._steps_drawn = max((point.step for point in points), default=self._steps_drawn)
        shared = shared_keys(study.search, study.searched)
        view = views.state(columns(study.searched), study.objective.direction)
        wanted = {
            **picture.EXPERIMENT_TAGS,
            picture.STUDY_TAG: row.name,
            picture.NOTE_TAG: text,
            views.TAG: views.encode(view, row.created_at),
            charts.TAG: views.encode(
                charts.state(study.searched, shared, study.objective.direction), row.created_at, charts.NAME
            ),
        }
        if is_confirmed:
            objective = study.objective
            view = charts.finalists_state(study.searched, objective.metric, objective.direction)
            wanted[charts.FINALISTS_TAG] = views.encode(view, row.created_at, charts.FINALISTS_NAME)
        board.tag_experiment(self._experiment_id, self._experiment_tags, wanted)
        if row.ended_at is not None:
            self._draw_report(row, [*trials, *(confirming if is_confirmed else ())])
        board.set_status(parent, "RUNNING" if row.ended_at is None else "FINISHED", row.ended_at)

    def _draw_report(self, row: StudyRow, trials: Sequence[TrialView]) -> None:
        """Give the parent run the report and its figures, once for what the study ended with."""
        seen = [row.ended_at, *((trial.place_id, trial.version) for trial in trials)]
        digest = hashlib.sha256(repr(seen).encode()).hexdigest()
        if self._parent.tags.get(_REPORT_TAG) == digest:
            return
        self._stay()
        with tempfile.TemporaryDirectory() as folder:
            write_report(read_results(self._ledger, row.name), Path(folder))
            self._board.copy_folder(self._parent, Path(folder))
        self._board.log(self._parent, [], {}, {_REPORT_TAG: digest})


def _study(row: StudyRow) -> Study:
    return from_dict(row.spec, row.path, row.text)
