"""``sweeper delete``: a study taken out of MLflow, the artifact folder, Optuna's tables and the ledger.

The ledger's rows go last: whatever interrupts it, the study is still there to be deleted again.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import SweeperError, UnreachableError, UsageError
from sweeper.owner import folders_of, why_not_ours

if TYPE_CHECKING:
    from sweeper.home import Home
    from sweeper.ledger import Ledger


@dataclass(frozen=True)
class Deleted:
    """What is gone.

    Args:
        trials: how many trials the study had, references not counted.
        folders: of weights and checkpoints.
        in_mlflow: whether MLflow had something of it, which is in its bin now.
        notes: what could not be deleted, a sentence each.
    """

    study: str
    trials: int
    folders: list[str] = field(default_factory=list)
    in_mlflow: bool = False
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def what_is_deleted(ledger: Ledger, home: Home, name: str) -> str:
    """The question that is asked before, as one sentence."""
    trials = sum(view.number is not None for view in ledger.trials(name))
    store = ledger.store_id()
    folders = [
        str(folder)
        for folder in folders_of(home, name)
        if folder.exists() and why_not_ours(folder, home, store) is None
    ]
    files = f", and all files in {' and '.join(folders)}" if folders else ""
    return f"Delete the study {name} with {'1 trial' if trials == 1 else f'{trials} trials'}{files}?"


def delete_study(ledger: Ledger, home: Home, name: str) -> Deleted:
    """Delete a study and everything that was made for it, but not its study file, backbone and data.

    MLflow may be unreachable: what it has is left there then, and a note says so.

    Raises:
        UsageError: trials of it run.
        OSError: a file cannot be deleted; then the study is still there.
        UnreachableError: the store cannot be reached.
    """
    from sweeper.asktell import delete_optuna_study
    from sweeper.session import alone

    ledger.reap_dead(name, "handed_back")
    _refuse_if_running(ledger, name, ledger.close_study(name))
    deleted = Deleted(name, sum(view.kind == "search" for view in ledger.trials(name)))
    with ExitStack() as undrawn:  # until the last row is gone, or somebody would draw it anew
        in_mlflow = _delete_drawn(ledger, home, name, deleted.notes, undrawn)
        _delete_folders(ledger, home, deleted)
        with alone(home):
            _refuse_if_running(ledger, name, ledger.close_study(name))
            delete_optuna_study(home, name)
            _refuse_if_running(ledger, name, ledger.delete_study(name))
    return Deleted(name, deleted.trials, deleted.folders, in_mlflow, deleted.notes)


def _refuse_if_running(ledger: Ledger, name: str, count: int) -> None:
    if count == 0:
        return
    if any(view.state == "running" for view in ledger.confirmations(name)):
        raise UsageError(
            f"the study {name} cannot be deleted: `sweeper confirm {name}` trains. End that with Ctrl-C "
            "where it runs, and try again; what a lost worker held is free once its lease has run out"
        )
    what = "1 trial of it runs" if count == 1 else f"{count} trials of it run"
    if ledger.study(name).is_stopped:
        raise UsageError(
            f"the study {name} cannot be deleted yet: {what}, and is to be handed back. Try again in a "
            "moment; what a lost worker held is free once its lease has run out"
        )
    raise UsageError(f"the study {name} cannot be deleted: {what}. Stop it first: `sweeper stop {name}`")


def _delete_drawn(ledger: Ledger, home: Home, name: str, notes: list[str], undrawn: ExitStack) -> bool:
    from sweeper.tracking import Tracker

    try:
        return undrawn.enter_context(Tracker(home, name, ledger).deleted())
    except (UnreachableError, UsageError) as error:
        notes.append(f"the experiment {name} in MLflow is left there: {error}")
        return False


def _delete_folders(ledger: Ledger, home: Home, deleted: Deleted) -> None:
    name, store = deleted.study, ledger.store_id()
    for folder in folders_of(home, name):
        others = why_not_ours(folder, home, store)
        if others is None:
            _delete_folder(home, folder, deleted)
        elif folder.exists():
            deleted.notes.append(f"{folder} is left: it {others}")
        elif folder == home.artifacts / name and any(view.files for view in ledger.trials(name)):
            deleted.notes.append(
                f"the weights are left where they are: there is no {folder} on this machine; they are in the "
                f"folder {name} of SWEEPER_ARTIFACTS on the machines that trained it"
            )


def _delete_folder(home: Home, folder: Path, deleted: Deleted) -> None:
    """Delete a folder; nothing that a link leads to."""
    if folder.parent not in (home.artifacts, home.checkpoints):
        raise SweeperError(f"{folder} is no folder of a study")  # a name with a separator would be a bug
    if folder == home.checkpoints:
        deleted.notes.append(f"{folder} is left: the checkpoints of all studies are in it")
    elif folder.is_symlink():
        folder.unlink()
        deleted.notes.append(f"{folder} was a link: what it led to is left there")
    elif folder.exists():
        shutil.rmtree(folder)
        deleted.folders.append(str(folder))
