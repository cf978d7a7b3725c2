"""The trials that both sides train: drawn once from the quickstart's space, and as AdapterHub has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters.architectures import check_fits, sites
from adapters.config import AdapterConfig
from sweeper.slot import Job
from sweeper.space import configuration, suggest, trial_seed
from sweeper.study import Study
from sweeper.trainconfig import TrainConfig

SPACES: dict[str, dict[str, Any]] = {
    "quickstart": {},
    "all": {"layers": "all"},
    "upper": {"layers": ["upper_half", "upper_third"]},
}
"""Name of a space to the keys of its search that differ from the quickstart's."""

# AdapterHub knows three initializations: kaiming with zero up, and two normal ones. Of the others, the one
# whose module starts with weights of the nearest size.
_INITIALIZATIONS = {
    "zero_up": "mam_adapter",
    "normal": "bert",
    "truncated_normal": "houlsby",
    "kaiming": "bert",
    "xavier": "bert",
    "orthogonal": "bert",
}
EXACT_INITIALIZATIONS = ("zero_up", "normal", "truncated_normal")
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "tanh": "tanh"}
_WIRINGS = {
    "houlsby": {"mh_adapter": True, "output_adapter": True},
    "pfeiffer": {"mh_adapter": False, "output_adapter": True},
    "attention": {"mh_adapter": True, "output_adapter": False},
    "parallel": {"mh_adapter": False, "output_adapter": True, "is_parallel": True},
}


@dataclass(frozen=True)
class Trial:
    """One of the drawn trials."""

    number: int
    seed: int
    adapter: AdapterConfig
    train: TrainConfig

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "number": self.number,
            "seed": self.seed,
            "adapter": self.adapter.to_dict(),
            "train": self.train.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Trial:
        """What ``to_dict`` gave."""
        adapter, train = AdapterConfig.from_dict(values["adapter"]), TrainConfig.from_dict(values["train"])
        return cls(values["number"], values["seed"], adapter, train)

    def job(self) -> Job:
        """The trial as the training loop takes it."""
        return Job(self.number, self.number, 1, self.adapter, self.train, self.seed)


def draw(study: Study, count: int, backbone_config: Any) -> list[Trial]:
    """The first ``count`` trials of a study's space, at random, by the study's seed.

    Raises:
        AdapterError: one of them does not fit the backbone.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    drawing = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=study.seed))
    trials = []
    for number in range(count):
        drawn = configuration(study, suggest(drawing.ask(), study))
        check_fits(drawn.adapter, backbone_config)
        trials.append(Trial(number, trial_seed(study, number), drawn.adapter, drawn.train))
    return trials


def hub_config(adapter: AdapterConfig, hidden_size: int, layer_count: int) -> dict[str, Any]:
    """The arguments of AdapterHub's ``BnConfig`` for the same modules at the same sites, of the same size.

    Raises:
        KeyError: a placement or an activation that it is not known to have.
    """
    assert adapter.placement is not None  # a bottleneck has one
    used = {site.layer for site in sites(adapter, layer_count)}
    return {
        **_WIRINGS[adapter.placement],
        # It takes int(hidden_size // reduction_factor) units: half a unit more, lest rounding take one away.
        "reduction_factor": hidden_size / (adapter.bottleneck_dim + 0.5),
        "non_linearity": _ACTIVATIONS[adapter.activation],
        "original_ln_before": False,
        "original_ln_after": True,
        "init_weights": _INITIALIZATIONS[adapter.initialization],
        "leave_out": [layer for layer in range(layer_count) if layer not in used],
        "scaling": float(adapter.scaling),
        "dropout": float(adapter.dropout),
    }


def inexact(trials: Sequence[Trial]) -> list[str]:
    """What AdapterHub has no equal of, a line each."""
    lines = []
    for name, nearest in _INITIALIZATIONS.items():
        numbers = [str(t.number) for t in trials if t.adapter.initialization == name]
        if numbers and name not in EXACT_INITIALIZATIONS:
            lines.append(f"initialization {name} is {nearest} there: trials {', '.join(numbers)}")
    return lines
