"""What ``sweeper gc`` removes, and above all what it leaves where it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from filelock import FileLock

from sweeper.cache import Layout
from sweeper.checkpoint import read_checkpoint, write_checkpoint
from sweeper.collect import Collected, collect
from sweeper.ledger import Claim, Result, this_worker
from sweeper.ledger.confirmation import CONFIRM
from sweeper.owner import mark
from sweeper.slot import SlotState
from tests.made_study import MadeStudy, home_in
from tests.unit.sweeper.test_train import job

NEEDED = Layout("b" * 64, "d" * 64, "float32", 0, 0).key
"""Of the made study."""
OTHER = Layout("other", "d" * 64, "float32", 0, 0).key
CONTENT = b"x" * 1000


@pytest.fixture
def study(tmp_path: Path) -> MadeStudy:
    return MadeStudy(home_in(tmp_path / "sweeps"))


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    return path


def frozen(study: MadeStudy, key: str) -> Path:
    """Frozen states as a builder leaves them, with its lock."""
    folder = study.home.cache / "frozen" / key
    for name in ("0.safetensors", "whole.json"):
        put(folder / "train-layer_3" / name)
    (folder / "lock").touch()
    return folder


def tokens(study: MadeStudy, fingerprint: str) -> Path:
    folder = study.home.cache / "tokens" / fingerprint
    put(folder / "tokens.safetensors")
    (folder.parent / f"{fingerprint}.lock").touch()
    return folder


def checkpoint(study: MadeStudy, claim: Claim) -> Path:
    state = SlotState({"w": torch.zeros(3)}, {"step": 10})
    return write_checkpoint(study.home.checkpoints, claim, job(), state)


def claim(study: str, number: int, attempt: int = 1) -> Claim:
    return Claim(study, 0, "search", None, "t", attempt, 60.0, trial_number=number)


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def gone(collected: Collected) -> dict[tuple[str, str], int]:
    return {(entry.kind, entry.path.name): entry.bytes for entry in collected.removed}


def test_frozen_states_stay_as_long_as_a_study_that_needs_them_goes_on(study: MadeStudy) -> None:
    needed, other = frozen(study, NEEDED), frozen(study, OTHER)
    before = files(needed)
    assert gone(collect(study.ledger, study.home)) == {("frozen states", OTHER): 2000}
    assert files(needed) == before and {path.name for path in files(other)} == {"lock"}
    assert collect(study.ledger, study.home).leftovers == ()
    # Also if it has ended, but for a trial that had begun.
    for _ in range(2):
        study.run_next()
    claim = study.run_next(evaluations=1)
    assert claim.kind == "search" and study.ledger.end_over_budget("films", "enough")
    study.ledger.release(claim)
    assert gone(collect(study.ledger, study.home)) == {}
    study.ledger.stop("films")
    assert gone(collect(study.ledger, study.home)) == {("frozen states", NEEDED): 2000}
    assert {path.name for path in files(needed)} == {"lock"}


def test_what_a_worker_holds_stays_and_is_said(study: MadeStudy) -> None:
    folders = (frozen(study, OTHER), tokens(study, "e" * 64))
    locks = (folders[0] / "lock", folders[1].with_name(f"{'e' * 64}.lock"))
    before = files(study.home.cache)
    for lock, folder in zip(locks, folders, strict=True):
        with FileLock(lock):
            collected = collect(study.ledger, study.home, dry_run=True)
            assert [entry.path for entry in collected.removed] == [f for f in folders if f != folder]
            [kept] = [entry for entry in collected.leftovers if entry.kept_because]
            assert (kept.path, kept.kept_because) == (folder, "is in use by a worker")
    with FileLock(locks[0]), FileLock(locks[1]):
        assert gone(collect(study.ledger, study.home)) == {}
    assert files(study.home.cache) == before
    assert len(gone(collect(study.ledger, study.home))) == 2


def test_tokens_stay_as_long_as_the_store_has_a_study_of_them(study: MadeStudy) -> None:
    study.ledger.stop("films")
    kept, other = tokens(study, "d" * 64), tokens(study, "e" * 64)
    assert gone(collect(study.ledger, study.home)) == {("tokens", "e" * 64): 1000}
    assert files(kept) and not other.exists()


@pytest.mark.parametrize("kind", ["frozen", "tokens"])
def test_an_interrupted_build_goes_once_nobody_builds(study: MadeStudy, kind: str) -> None:
    whole = frozen(study, NEEDED) if kind == "frozen" else tokens(study, "d" * 64)
    place = whole if kind == "frozen" else whole.parent
    lock = place / ("lock" if kind == "frozen" else f"{'d' * 64}.lock")
    before = files(place)
    build = put(place / ".building-abc" / "0.safetensors")
    with FileLock(lock):
        assert collect(study.ledger, study.home).leftovers == () and build.exists()
    assert gone(collect(study.ledger, study.home)) == {("interrupted build", ".building-abc"): 1000}
    assert files(place) == before and not build.parent.exists()


def test_checkpoints_go_with_the_end_of_their_trial(study: MadeStudy) -> None:
    study.run_next()
    head, running = study.run_next(), study.run_next(evaluations=1)
    assert (head.label, running.trial_number) == ("reference-head", None)
    ended = [checkpoint(study, claim("films", 0)), checkpoint(study, head)]
    needed = checkpoint(study, claim("films", 1))
    unfinished = put(ended[0].with_name(f".{ended[0].name}"))
    sizes = {path: path.stat().st_size for path in (*ended, unfinished)}
    collected = collect(study.ledger, study.home)
    assert gone(collected) == {
        ("checkpoints", "trial-0000"): sizes[ended[0]] + sizes[unfinished],
        ("checkpoints", "reference-head"): sizes[ended[1]],
    }
    assert files(study.home.checkpoints) == {needed}
    assert read_checkpoint(study.home.checkpoints, claim("films", 1, attempt=2), job()) is not None


def test_checkpoints_of_what_confirm_trained_go_too(study: MadeStudy) -> None:
    study.run_all()
    study.ledger.confirm("films", [("confirm", f"confirm-0000-{seed}", {}) for seed in (1, 2)])
    running, ended = (study.ledger.reserve("films", this_worker("cpu"), kind=CONFIRM) for _ in range(2))
    assert running is not None and ended is not None
    study.ledger.record_result(ended, Result("failed", reason="no room"))
    needed = checkpoint(study, running)
    size = checkpoint(study, ended).stat().st_size
    assert gone(collect(study.ledger, study.home)) == {("checkpoints", ended.name): size}
    assert files(study.home.checkpoints) == {needed}


def test_checkpoints_of_a_study_that_is_gone_go_and_nothing_else_beside_them(study: MadeStudy) -> None:
    home = home_in(study.home.root, SWEEPER_ARTIFACTS=str(study.home.root / "moved"))
    assert home.checkpoints == home.artifacts / "checkpoints"
    path = write_checkpoint(home.checkpoints, claim("gone", 0), job(), SlotState({}, {"step": 1}))
    mark(home, "gone", study.ledger.store_id())
    # A study of this name would have its weights among the checkpoints.
    weights = put(home.artifacts / "checkpoints" / "trial-0000" / "attempt-1" / "adapter.safetensors")
    notes = put(home.checkpoints / "gone" / "notes.txt")
    size = path.stat().st_size
    assert gone(collect(study.ledger, home)) == {("checkpoints", "trial-0000"): size}
    marks = {home.artifacts / "gone" / ".store", home.checkpoints / "gone" / ".store"}
    assert files(home.artifacts) == {weights, notes, *marks}


def test_checkpoints_of_another_store_in_a_shared_folder_stay_and_are_said(
    study: MadeStudy, tmp_path: Path
) -> None:
    """Two stores, one artifact folder: a study that this store does not have may run in the other."""
    ours = home_in(study.home.root, SWEEPER_ARTIFACTS=str(tmp_path / "shared"))
    ids = {"theirs": "a" * 32, "gone": study.ledger.store_id(), "unmarked": None}
    for name, store in ids.items():
        write_checkpoint(ours.checkpoints, claim(name, 0), job(), SlotState({}, {"step": 1}))
        if store is not None:
            mark(ours, name, store)
    # Of a study that both stores have, a trial that has ended here may run there.
    study.run_next()
    write_checkpoint(ours.checkpoints, claim("films", 0), job(), SlotState({}, {"step": 1}))
    mark(ours, "films", "a" * 32)
    names = ("theirs", "unmarked", "films")
    before = {file for name in names for file in files(ours.checkpoints / name)}
    collected = collect(study.ledger, ours)
    assert {entry.path.parent.name: entry.kept_because for entry in collected.leftovers} == {
        "theirs": "belongs to another store",
        "films": "belongs to another store",
        "unmarked": "carries no mark of a store",
        "gone": None,
    }
    assert files(ours.checkpoints) == before and not (ours.checkpoints / "gone").exists()


def test_a_dry_run_says_the_same_and_changes_nothing(study: MadeStudy) -> None:
    frozen(study, OTHER)
    (frozen(study, Layout("x", "y", "float32", 0, 0).key) / "lock").unlink()
    tokens(study, "e" * 64)
    checkpoint(study, claim("gone", 0))
    put(study.home.cache / "tokens" / ".building-abc" / "about.json")
    before = set(study.home.root.rglob("*"))
    told = collect(study.ledger, study.home, dry_run=True)
    assert set(study.home.root.rglob("*")) == before and len(told.removed) == 5
    assert collect(study.ledger, study.home).leftovers == told.leftovers


def test_links_are_neither_followed_nor_removed(study: MadeStudy, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside" / "train-layer_3" / "0.safetensors").parents[1]
    other = frozen(study, OTHER)
    (other / "link").symlink_to(outside)
    (study.home.cache / "frozen" / ("0" * 32)).symlink_to(outside)
    study.home.checkpoints.symlink_to(outside)
    collected = collect(study.ledger, study.home)
    assert gone(collected) == {("frozen states", OTHER): 2000}
    [kept] = [entry for entry in collected.leftovers if entry.kept_because]
    assert (kept.path, kept.kept_because) == (
        study.home.checkpoints,
        "is a link, and links are not followed",
    )
    assert len(files(outside)) == 1 and (other / "link").is_symlink()


def test_what_has_no_name_of_ours_stays(study: MadeStudy) -> None:
    kept = {
        put(study.home.cache / "frozen" / "mine" / "notes.txt"),
        put(study.home.cache / "tokens" / "mine" / "notes.txt"),
        put(study.home.cache / "packs" / "size.json"),
        put(study.home.checkpoints / "films" / "trial-0000" / "notes.txt"),
        put(study.home.checkpoints / "No Study" / "trial-0000" / "attempt-1" / "notes.txt"),
    }
    assert collect(study.ledger, study.home).leftovers == ()
    assert kept <= files(study.home.root)


def test_what_cannot_be_removed_is_said(study: MadeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen(study, OTHER)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sweeper.collect._remove", refuse)
    [entry] = collect(study.ledger, study.home).leftovers
    assert entry.kept_because == "cannot be removed: Permission denied"
