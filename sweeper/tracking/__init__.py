"""The ledger, shown in MLflow: an experiment a study, a parent run, a child run for each trial.

    tracker = Tracker(home, "sst2", ledger)
    tracker.show()      # as often as you like

MLflow is a picture: it may be down, lost or replaced by another server. ``show`` draws whatever is missing,
and can be repeated with the same end state after an interruption anywhere. What is drawn is decided in
``drawing``, ``picture`` and ``note``. This is the only file that imports MLflow, and only when something is
drawn, since the import takes seconds.
"""

from __future__ import annotations

import glob
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import UnreachableError
from sweeper.home import Home, sqlite_url
from sweeper.ledger import Ledger
from sweeper.tracking.address import check_uri, database_file, reachable
from sweeper.tracking.picture import EXPERIMENT_TAGS, FINAL, DataSet, Point
from sweeper.tracking.removing import drop_study, take_away

if TYPE_CHECKING:
    import mlflow.entities
    from mlflow import MlflowClient

    from sweeper.tracking.drawing import Drawing

SENDER_SECONDS = 15.0
"""How long others wait for a process that was killed while it drew."""
DELETING_SECONDS = 600.0
"""How long others wait for a process that deletes the study."""
_DELETER = "deleting"
_DISPLACED = "MLflow is being drawn by another process: try again"
_AT_ONCE = 1000  # the most that MLflow takes in one call, and gives in one page
_PARAMS_AT_ONCE = 100
# Read by MLflow when it is imported or used; what the user has set stays.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class Tracker:
    """Draws one study. One thread uses it; processes take turns by a lease in the ledger.

    Args:
        home: where MLflow is, and the weights that it gets copies of.
        name: of the study.
    """

    def __init__(self, home: Home, name: str, ledger: Ledger) -> None:
        self._home = home
        self._name = name
        self._ledger = ledger
        self._sender = uuid.uuid4().hex
        self._drawing: Drawing | None = None

    def show(self, wait_seconds: float = SENDER_SECONDS + 1.0, *, anew: bool = False) -> int:
        """Draw what MLflow does not show yet; returns how many trials were drawn.

        Args:
            anew: draw all of it, and put what MLflow has of the study into its bin.
            wait_seconds: how long to wait for another process that draws; 0 is returned if it goes on.

        Raises:
            UnreachableError: MLflow cannot be used now. Nothing is lost: call again later.
            UsageError: ``MLFLOW_TRACKING_URI`` is none that can be used.
        """
        with self._turn(wait_seconds) as mine:
            if not mine:
                return 0
            try:
                with reachable(self._home.tracking_uri):
                    return self._draw(anew)
            except BaseException:
                # Whether the last call did its work is not known: look again the next time.
                self._drawing = None
                raise

    def _draw(self, anew: bool) -> int:
        if self._drawing is None or anew:
            from sweeper.tracking.drawing import Drawing

            board = Board(self._home)
            if anew:
                take_away(board, self._ledger.study(self._name), self._keep)
                self._ledger.hide_all(self._name)
            self._drawing = Drawing(board, self._home, self._name, self._ledger, self._keep)
        return self._drawing.draw()

    @contextmanager
    def deleted(self, wait_seconds: float = SENDER_SECONDS + 1.0) -> Iterator[bool]:
        """Put what MLflow has of the study into its bin. Inside, nobody draws it anew.

        All who delete a study take turns as one, so that what one began that was killed another one ends.

        Yields:
            whether it had something.

        Raises:
            UnreachableError: MLflow cannot be used now, or another process goes on drawing.
            UsageError: ``MLFLOW_TRACKING_URI`` is none that can be used.
        """
        self._sender = _DELETER
        with self._turn(wait_seconds) as mine:
            if not mine:
                raise UnreachableError(_DISPLACED)
            row, had = self._ledger.study(self._name), False
            if row.experiment_id is not None:  # never drawn: looking would make MLflow's tables
                with reachable(self._home.tracking_uri):
                    had = drop_study(Board(self._home), row, self._keep)
            if not self._ledger.hold_sender(self._name, self._sender, DELETING_SECONDS):
                raise UnreachableError(_DISPLACED)
            yield had

    @contextmanager
    def _turn(self, wait_seconds: float) -> Iterator[bool]:
        """Be the one who draws; False if somebody else goes on being it."""
        deadline = time.monotonic() + wait_seconds
        while not self._stay():
            if time.monotonic() >= deadline:
                yield False
                return
            time.sleep(0.2)
        try:
            yield True
        finally:
            self._ledger.drop_sender(self._name, self._sender)

    def _keep(self) -> None:
        """Go on being the one who draws.

        Raises:
            UnreachableError: somebody else has become that, since a call of MLflow took too long.
        """
        if not self._stay():
            raise UnreachableError(_DISPLACED)

    def _stay(self) -> bool:
        return self._ledger.hold_sender(self._name, self._sender, SENDER_SECONDS)


@dataclass
class Run:
    """A run as MLflow has it, as far as we know. ``ended_at`` is in milliseconds since 1970."""

    run_id: str
    status: str
    ended_at: int | None
    tags: dict[str, str]
    has_data: bool

    @classmethod
    def of(cls, run: mlflow.entities.Run) -> Run:
        has_data = bool(run.inputs and run.inputs.dataset_inputs)
        return cls(run.info.run_id, run.info.status, run.info.end_time, dict(run.data.tags), has_data)


class Board:
    """MLflow, as much of it as is needed to draw. Every call can be repeated with the same end state.

    Raises:
        UsageError: ``MLFLOW_TRACKING_URI`` is none that can be used.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._client = _connect(home)

    def experiment(self, name: str) -> tuple[str, dict[str, str]]:
        """The experiment of a study, made or brought back from the bin: its id and its tags."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            # A server knows where its artifacts are; a bare database does not.
            is_server = self._home.tracking_uri.startswith("http")
            location = None if is_server else (self._home.mlflow_artifacts / name).as_uri()
            tags: dict[str, Any] = dict(EXPERIMENT_TAGS)
            return self._client.create_experiment(name, location, tags), {}
        if found.lifecycle_stage != "active":
            self._client.restore_experiment(found.experiment_id)
        return found.experiment_id, dict(found.tags)

    def tag_experiment(self, experiment_id: str, known: dict[str, str], wanted: Mapping[str, str]) -> None:
        """Set the tags of an experiment that differ from those ``known``, which is brought up to date."""
        for key, value in wanted.items():
            if known.get(key) != value:
                self._client.set_experiment_tag(experiment_id, key, value)
                known[key] = value

    def search(self, experiment_id: str, tags: Mapping[str, str]) -> Iterator[Run]:
        """The runs of an experiment that have these tags and are not deleted."""
        condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        page = None
        while True:
            runs = self._client.search_runs([experiment_id], condition, max_results=_AT_ONCE, page_token=page)
            yield from (Run.of(run) for run in runs)
            page = runs.token
            if not page:
                return

    def create(self, experiment_id: str, name: str, began_at: float, tags: dict[str, str]) -> Run:
        """Make a run. ``began_at`` is in seconds since 1970."""
        made = self._client.create_run(experiment_id, round(began_at * 1000), tags, run_name=name)
        return Run.of(made)

    def find(self, name: str) -> str | None:
        """The id of the experiment of a study; None if there is none, or it is in the bin."""
        found = self._client.get_experiment_by_name(name)
        return None if found is None or found.lifecycle_stage != "active" else found.experiment_id

    def drop(self, experiment_id: str, name: str) -> None:
        """Put an experiment into the bin, under a name that no study can have: its own is free again."""
        self._client.rename_experiment(experiment_id, f"{name} (deleted, {experiment_id})")
        self._client.delete_experiment(experiment_id)

    def delete(self, run: Run) -> None:
        """Put a run into the bin."""
        self._client.delete_run(run.run_id)

    def log(
        self, run: Run, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Write metrics, parameters and the tags that changed, in as few calls as MLflow allows."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(point.key, point.value, round(point.time * 1000), point.step) for point in points]
        changed = {key: value for key, value in tags.items() if run.tags.get(key) != value}
        pairs = [Param(key, value) for key, value in params.items()]
        room = _AT_ONCE - _PARAMS_AT_ONCE - len(changed)
        for start in range(_PARAMS_AT_ONCE, len(pairs), _PARAMS_AT_ONCE):
            self._client.log_batch(run.run_id, params=pairs[start : start + _PARAMS_AT_ONCE])
        self._client.log_batch(
            run.run_id,
            metrics=metrics[:room],
            params=pairs[:_PARAMS_AT_ONCE],
            tags=[RunTag(key, value) for key, value in changed.items()],
        )
        for start in range(room, len(metrics), _AT_ONCE):
            self._client.log_batch(run.run_id, metrics=metrics[start : start + _AT_ONCE])
        run.tags.update(changed)

    def log_data(self, run: Run, data_sets: Sequence[DataSet]) -> None:
        """Write down what a run trains on."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(split.name, split.digest, split.source_type, split.source, profile=split.profile),
                [InputTag("mlflow.data.context", split.context)],
            )
            for split in data_sets
        ]
        self._client.log_inputs(run.run_id, inputs)
        run.has_data = True

    def copy_file(self, run: Run, file: Path) -> None:
        """Give a run a copy of a file, under its name."""
        self._client.log_artifact(run.run_id, str(file))

    def copy_folder(self, run: Run, folder: Path) -> None:
        """Give a run copies of all files of a folder, under their paths in it."""
        self._client.log_artifacts(run.run_id, str(folder))

    def copy_text(self, run: Run, name: str, text: str) -> None:
        """Give a run a text as a file."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_text(text, encoding="utf-8")
            self.copy_file(run, file)

    def set_status(self, run: Run, status: str, ended_at: float | None) -> None:
        """Set MLflow's status of a run, and for one that ended the time in seconds since 1970."""
        end = None if ended_at is None else round(ended_at * 1000)
        if run.status == status and run.ended_at == end:
            return
        if status in FINAL:
            self._client.set_terminated(run.run_id, status=status, end_time=end)
        else:
            self._client.update_run(run.run_id, status=status)
        run.status, run.ended_at = status, end


def _connect(home: Home) -> MlflowClient:
    """A client of the tracking server, or of the database with its tables made."""
    check_uri(home.tracking_uri)
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    # What fails is raised too, and said in one sentence; MLflow would print it with its traceback besides.
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    file = database_file(home.tracking_uri)
    if file is None:
        return MlflowClient(tracking_uri=home.tracking_uri)
    from filelock import FileLock

    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if not file.exists() or file.stat().st_size == 0:
            _make_database(home, file)
        return MlflowClient(tracking_uri=home.tracking_uri)


def _make_database(home: Home, file: Path) -> None:
    """Make MLflow's tables in a file beside, which takes the name once it is whole.

    That takes seconds, and MLflow cannot go on from tables that a kill left half made.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for left in file.parent.glob(f"{glob.escape(file.name)}.*.unfinished*"):
        left.unlink(missing_ok=True)
    # A name of its own: MLflow keeps its connections to a name that it had before.
    unfinished = file.with_name(f"{file.name}.{uuid.uuid4().hex}.unfinished")
    store = SqlAlchemyStore(sqlite_url(unfinished), home.mlflow_artifacts.as_uri())
    store.engine.dispose()
    os.replace(unfinished, file)
