"""A study in a ledger without any training: made-up results, written through the ledger's own interface.

For tests of what is done with results. The numbers are chosen so that the best trial is not the last, a
pruned trial has a higher objective than the best, and trial 0 is the default configuration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeper.finalists import label_of, parse_label
from sweeper.home import Home
from sweeper.ledger import Attached, Claim, Ledger, NewStudy, Result, this_worker
from sweeper.ledger.confirmation import CONFIRM, FULL
from sweeper.study import from_dict

HIDDEN_SIZE, LAYERS, BACKBONE_PARAMETERS, HEAD_PARAMETERS = 384, 6, 22_713_216, 770
SEARCH: dict[str, Any] = {
    "bottleneck_dim": {"from": 4, "to": 256, "log": True},
    "activation": ["relu", "gelu", "silu"],
    "initialization": ["zero_up", "truncated_normal"],
    "placement": ["pfeiffer", "houlsby"],
    "layers": ["all", "upper_half", [0, 2, 4]],
    "learning_rate": {"from": 1e-4, "to": 1e-2, "log": True},
}
COMMAND = "sweeper run films.yaml"
STUDY_TEXT = "study: films\n# as it was written\n"


@dataclass(frozen=True)
class Made:
    """How one trial of the study went."""

    params: Mapping[str, Any]
    curve: tuple[float, ...]
    state: str = "complete"
    reason: str | None = None


def _params(dim: int, activation: str, initialization: str, placement: str, layers: str, rate: float) -> Any:
    names = ("bottleneck_dim", "activation", "initialization", "placement", "layers", "learning_rate")
    return dict(zip(names, (dim, activation, initialization, placement, layers, rate), strict=True))


TRIALS = (
    Made(_params(24, "relu", "zero_up", "pfeiffer", "all", 1e-3), (0.71, 0.79, 0.8134765625)),
    Made(_params(97, "gelu", "truncated_normal", "houlsby", "[0, 2, 4]", 2.5e-3), (0.74, 0.83, 0.8642578125)),
    Made(_params(8, "silu", "zero_up", "pfeiffer", "upper_half", 2e-4), (0.9,), "pruned", "at rung 1"),
    Made(_params(256, "gelu", "zero_up", "houlsby", "all", 9e-3), (), "pruned", "diverged"),
    Made(
        _params(64, "relu", "zero_up", "pfeiffer", "all", 4e-3), (0.7,), "failed", "RuntimeError: | <b>no</b>"
    ),
    Made(_params(32, "silu", "truncated_normal", "pfeiffer", "all", 8e-4), (0.72, 0.8, 0.822265625)),
)
HEAD = Made({"learning_rate": 1e-3}, (0.6, 0.65, 0.6796875))
BEST = 1


@dataclass
class MadeStudy:
    """A study that goes on as the test tells it to."""

    home: Home
    name: str = "films"
    direction: str = "maximize"
    trials: int = len(TRIALS)
    several: bool = False
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.home.root.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(self.home.store_url)
        self.ledger.create()
        self.ledger.add_study(
            NewStudy(
                name=self.name,
                spec=spec(self.name, self.direction, self.trials, self.several),
                path=str(self.home.root / "films.yaml"),
                text=STUDY_TEXT,
                dtype="float32",
                backbone_fingerprint="b" * 64,
                backbone_parameters=BACKBONE_PARAMETERS,
                data_fingerprint="d" * 64,
                data_report={
                    "rows": {"train": 800, "validation": 200},
                    "label_counts": {"train": {"negative": 400, "positive": 400}, "validation": {}},
                    "truncated": {"train": 3, "validation": 0},
                },
                label_names=["negative", "positive"],
                versions={"python": "3.11.2", "torch": "2.13.0"},
                command=COMMAND,
                git_commit="c" * 40,
            )
        )
        self.ledger.set_budget(self.name, self.trials, {}, [("reference-head", {})])

    def run_all(self) -> None:
        """Every trial and the reference, and the study's end."""
        for _ in range(self.trials + 1):
            self.run_next()
        self.ledger.end_if_done(self.name)

    def run_next(self, evaluations: int | None = None) -> Claim:
        """The next place: to its end, or for so many evaluations, after which it goes on running."""
        claim = self.ledger.reserve(self.name, this_worker("cpu"))
        assert claim is not None
        number = None if claim.kind == "reference" else claim.trial_number
        if claim.kind == "search" and number is None:
            number = sum(trial.number is not None for trial in self.ledger.trials(self.name))
        made = HEAD if number is None else TRIALS[number]
        adapter = 0 if number is None else 6 * (2 * HIDDEN_SIZE * made.params["bottleneck_dim"] + 500)
        configuration = hashlib.sha256(repr(made.params).encode()).hexdigest()
        self.ledger.attach(
            claim, Attached(number, number, made.params, configuration, adapter, HEAD_PARAMETERS)
        )
        for evaluation, value in enumerate(made.curve[:evaluations], start=1):
            values = {
                "train/loss": 1.0 - value,
                "validation/loss": 1.1 - value,
                "accuracy": value,
                "objective": value,
                "learning_rate": 1e-3 / evaluation,
                "examples_per_second": 321.5,
                "peak_memory_bytes": 512e6,
                "system/cpu_utilization_percentage": 50.0 + evaluation,
            }
            self.ledger.record_metrics(claim, evaluation, 25 * evaluation, float(evaluation), values)
        if evaluations is not None:
            return claim
        last = made.curve[-1] if made.curve else None
        metrics = {} if last is None else {"accuracy": last}
        files = self._write_files(claim.name, claim.attempt) if made.state == "complete" else {}
        self.ledger.record_result(claim, Result(made.state, last, metrics, 1.5, files, made.reason))
        return claim

    def confirm(
        self,
        finalists: int = 2,
        seeds: int = 3,
        lost: int = 0,
        read: Callable[[str], bool] = lambda label: True,
    ) -> None:
        """What ``confirm`` writes of some finalists, the head and the whole backbone: trained and read.

        Args:
            lost: how many trainings of the smallest finalist diverge.
            read: which labels are read on the test rows, where ``confirm`` is interrupted while it reads.
        """
        best = self.ledger.best(self.name, finalists)
        wanted = [
            (kind, label_of(what, seed), params)
            for seed in range(1, seeds + 1)
            for kind, what, params in [
                *((CONFIRM, view.number or 0, view.params) for view in best),
                (CONFIRM, "head", TRIALS[0].params),
                (FULL, "full", {"learning_rate": 5e-5}),
            ]
        ]
        self.ledger.confirm(self.name, wanted)
        smallest = min(best, key=lambda view: view.adapter_parameters or 0).number or 0
        diverge = {label_of(smallest, seed) for seed in range(1, lost + 1)}
        for kind in (CONFIRM, FULL):
            while (claim := self.ledger.reserve(self.name, this_worker("cpu"), kind=kind)) is not None:
                self._confirm_one(
                    claim, BACKBONE_PARAMETERS if kind == FULL else 4000, claim.label in diverge, read
                )

    def _confirm_one(self, claim: Claim, adapter: int, diverges: bool, read: Callable[[str], bool]) -> None:
        what, seed = parse_label(str(claim.label))
        params = claim.fixed_params or {}
        adapter = 0 if what == "head" else adapter
        self.ledger.attach(claim, Attached(None, None, params, str(claim.label), adapter, HEAD_PARAMETERS))
        if diverges:
            self.ledger.record_result(claim, Result("pruned", reason="diverged"))
            return
        value = {"head": 0.65, "full": 0.88}.get(what, 0.85 + int(what) / 1000 if what.isdigit() else 0.0)
        value += int(seed) / 256
        values = {"accuracy": value, "objective": value}
        self.ledger.record_metrics(claim, 1, 25, 1.0, values)
        self.ledger.record_result(claim, Result("complete", value, {"accuracy": value}, 1.5))
        if read(str(claim.label)):
            self.ledger.note_measured(claim.place_id, {"test/accuracy": value - 0.01, "latency_ms": 2.5})

    def _write_files(self, name: str, attempt: int) -> dict[str, str]:
        files = {}
        for part in ("adapter", "head"):
            path = self.home.artifacts / self.name / f"{name}-{attempt}" / f"{part}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{part} of {name}".encode())
            files[str(path.relative_to(self.home.artifacts))] = hashlib.sha256(path.read_bytes()).hexdigest()
        return files


def spec(name: str, direction: str, trials: int, several: bool = False) -> dict[str, Any]:
    """The study as the ledger keeps it; with the number of parameters as its second objective."""
    metric = "accuracy" if direction == "maximize" else "loss"
    objective = {"metric": metric, "direction": direction}
    second = {"metric": "trainable_parameters", "direction": "minimize"}
    written = {
        "study": name,
        "backbone": {"model": "backbone"},
        "task": {"kind": "classification", "text": "sentence", "label": "label"},
        "data": {"train": "train.tsv", "validation": 0.2},
        "search": SEARCH,
        "objective": [objective, second] if several else objective,
        "budget": {"trials": trials},
        "seed": 3,
    }
    return from_dict(written, "films.yaml").to_dict()


def home_in(folder: Any, **variables: str) -> Home:
    """A home in a folder, whatever this process's environment says."""
    return Home.from_environment({"SWEEPER_HOME": str(folder), **variables})
