"""``sweeper export``: finished adapters as folders of files that load without the store.

Without ``--top`` the one adapter is written into the folder itself; with it, each into a folder of its own.
The weights are copied from the artifact folder once their digests are those that the ledger recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import NothingSucceededError, SweeperError, UsageError
from sweeper.export.card import FILES, card, configuration_yaml, snippet
from sweeper.export.folders import FORMAT, as_json, check_target, sha256, verified, write_folders
from sweeper.export.foreign import FORMATS, foreign_card, foreign_files
from sweeper.export.head import HeadFacts, head_bytes
from sweeper.finalists import preferred, preferred_front, verdict
from sweeper.front import objectives_of
from sweeper.lookup import find_trial, study_name

if TYPE_CHECKING:
    from sweeper.home import Home
    from sweeper.ledger import Ledger, StudyRow, TrialView
    from sweeper.study import Study


@dataclass(frozen=True)
class Exported:
    """One adapter that was written.

    Args:
        folder: where its files are, absolute.
        trial: its number.
        metric, value: what the study searched for, and what this trial reached on the validation rows.
        files: their names.
    """

    folder: Path
    trial: int
    metric: str
    value: float
    files: tuple[str, ...] = tuple(sorted(FILES))

    def to_json(self) -> dict[str, Any]:
        """What ``export --json`` prints of it."""
        return {**asdict(self), "folder": str(self.folder), "files": list(self.files)}


def export_study(
    ledger: Ledger,
    home: Home,
    study: str,
    out: str | Path,
    *,
    top: int | None = None,
    trial: int | str | None = None,
    pareto: bool = False,
    format: str = "sweeper",
) -> list[Exported]:
    """Writes the best adapter, the ``top`` best, a given trial, or the front of several objectives.

    Where ``confirm`` has found a winner, it is the best.

    Args:
        study: its name.
        out: a new folder, or that of an earlier export, which is replaced.
        top: writes so many, best first, each into ``out/trial-0007``.
        trial: writes this one, 7 or trial-0007, into ``out`` itself.
        pareto: writes every trial that none dominates, each into ``out/trial-0007``.
        format: ``sweeper``, or the library whose files are written: ``adapterhub`` or ``peft``.

    Raises:
        UsageError: no such study or trial, the trial has no weights, ``out`` holds something else, or the
            format cannot express an adapter.
        NothingSucceededError: no trial has succeeded.
        SweeperError: the weights are not those that the ledger recorded.
    """
    if sum((top is not None, trial is not None, pareto)) > 1:
        raise UsageError("--top, --trial and --pareto exclude each other: give one of them")
    if format not in FORMATS:
        raise UsageError(f"--format is one of {', '.join(FORMATS)}, not {format!r}")
    name = study_name(ledger, study)
    target = Path(out).resolve()
    check_target(target)
    if trial is not None:
        asked = find_trial(ledger.trials(name), name, str(trial))
        if asked.number is None:
            raise UsageError(
                f"{asked.label} is a reference, and no trial of the search: give a trial's number"
            )
        chosen = [_with_weights(asked)]
    elif pareto:
        chosen, _ = preferred_front(ledger, name)
    else:
        chosen, _ = preferred(ledger, name, top or 1)
    if not chosen:
        raise NothingSucceededError(
            f"no trial of the study {name!r} has succeeded: there is nothing to export"
        )
    row = ledger.study(name)
    contents, exported = {}, []
    said = verdict(ledger, name)
    for view in chosen:
        assert view.number is not None and view.objective is not None
        inside = str(view.name) if top is not None or pareto else ""
        contents[inside] = adapter_files(row, view, home.artifacts, target / inside, said, format)
        metric, names = objectives_of(row.spec)[0]["metric"], tuple(sorted(contents[inside]))
        exported.append(Exported(target / inside, view.number, metric, view.objective, names))
    write_folders(target, contents)
    return exported


def adapter_files(
    row: StudyRow,
    trial: TrialView,
    artifacts: Path,
    folder: Path,
    confirmed: Mapping[str, Any] | None = None,
    format: str = "sweeper",
) -> dict[str, bytes]:
    """Every file of one export, by name.

    Args:
        row: the study; ``trial``: one of its trials that has weights.
        artifacts: the artifact folder.
        folder: where the files will be, for the snippet.
        confirmed: what ``finalists.verdict`` says of the study.
        format: one of ``FORMATS``.
    """
    from sweeper import space
    from sweeper.study import from_dict

    study = from_dict(row.spec, row.path)
    found = space.configuration(study, trial.params)
    facts = _facts(row, study, trial, found)
    if confirmed is not None:
        named = (each for each in confirmed["finalists"] if each["params"] == trial.params)
        facts["confirmed"] = next(named, None)
    weights = {Path(path).name: verified(artifacts, path, digest) for path, digest in trial.files.items()}
    for name in ("adapter.safetensors", "head.safetensors"):
        if name not in weights:
            raise SweeperError(f"trial {trial.name} has no {name} in the ledger: it cannot be exported")
    if format != "sweeper":
        paths = {Path(path).name: artifacts / path for path in trial.files}
        files = foreign_files(format, row, study, str(trial.name), paths)
        files["README.md"] = foreign_card(format, facts, folder).encode()
        facts["files"] = {name: sha256(content) for name, content in files.items()}
        return {**files, "metrics.json": as_json(facts)}
    code = snippet(folder, study.path if study.path.is_file() else None, study.objective.metric, study.task)
    title = f"The configuration of {trial.name} of the study {row.name}"
    files = {
        "README.md": card(facts, code).encode(),
        "adapter.yaml": configuration_yaml(
            title,
            {key: found.to_dict()[key] for key in found.adapter.to_dict()},
            facts["configuration"]["train"],
        ).encode(),
        "adapter.safetensors": weights["adapter.safetensors"],
        "head.safetensors": _head(weights["head.safetensors"], row, study),
    }
    facts["files"] = {name: sha256(content) for name, content in files.items()}
    return {**files, "metrics.json": as_json(facts)}


def _with_weights(trial: TrialView) -> TrialView:
    if trial.state not in ("complete", "pruned") or not trial.files or trial.objective is None:
        reason = f" ({trial.reason})" if trial.reason else ""
        raise UsageError(f"{trial.name} is {trial.state}{reason} and has no weights to export")
    return trial


def _facts(row: StudyRow, study: Study, trial: TrialView, found: Any) -> dict[str, Any]:
    """What ``metrics.json`` holds, but for the digests of the other files."""
    train = {**found.train.to_dict(), "max_length": study.train.max_length, "dtype": row.dtype}
    return {
        "format": FORMAT,
        "study": row.name,
        "study_file": str(study.path),
        "trial": trial.to_json(),
        "objective": study.objective.to_dict(),
        "configuration": {
            "adapter": found.adapter.to_dict(),
            "train": train,
            **({"frozen": list(found.frozen)} if found.frozen else {}),
        },
        "seed": study.seed,
        "task": {
            **study.task.to_dict(),
            "text": list(study.task.text),
            "label": list(study.task.label),
            "label_names": row.label_names,
        },
        "backbone": _backbone(row, study),
        "data": {
            "sources": study.data.to_dict(),
            "fingerprint": row.data_fingerprint,
            **{key: row.data_report[key] for key in ("rows", "label_counts", "truncated")},
        },
        "versions": dict(row.versions),
    }


def _backbone(row: StudyRow, study: Study) -> dict[str, Any]:
    path = None if study.backbone.path is None else str(study.backbone.path)
    return {
        **study.backbone.to_dict(),
        "path": path,
        "fingerprint": row.backbone_fingerprint,
        "parameters": row.backbone_parameters,
    }


def _head(content: bytes, row: StudyRow, study: Study) -> bytes:
    """The head as it was recorded, with what it belongs to in its metadata."""
    from safetensors.torch import load

    backbone = _backbone(row, study)
    facts = HeadFacts(
        kind=study.task.kind,
        text=study.task.text,
        label=study.task.label,
        label_names=None if row.label_names is None else tuple(row.label_names),
        pooling=study.task.pooling,
        separator=study.task.separator,
        max_length=study.train.max_length,
        dtype=row.dtype,
        backbone={
            key: backbone[key]
            for key in ("model", "revision", "path", "fingerprint", "sites")
            if key in backbone
        },
        data_fingerprint=row.data_fingerprint,
    )
    return head_bytes(load(content), facts)
