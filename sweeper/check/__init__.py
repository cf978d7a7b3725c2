"""``sweeper check``: validates a study whole and says what would run. Nothing of it is kept.

What is printed comes from the same functions that a run uses; only the store is left alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.study import Study, difference, from_dict, load_study
from sweeper.study.layerbits import is_bit
from sweeper.study.schema import Choice, Fixed, Range, Source, Spec

if TYPE_CHECKING:
    from sweeper.ledger import StudyRow


def check_study(
    path: str | Path,
    *,
    measure: bool = True,
    device: str | None = None,
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Validates a study file with its data and backbone, and describes what would run.

    Args:
        path: the study file.
        measure: train a few real steps for the forecast; otherwise ``forecast`` is None.
        device: where to measure; default: the first that workers would use.
        note: told what takes a while.

    Returns:
        What ``check --json`` prints: ``study``, ``file``, ``backbone``, ``task``, ``data``, ``space``,
        ``sites``, ``adapter_parameters``, ``default``, ``budget``, ``limits``, ``sampler``, ``pruner``,
        ``seed``, ``dtype``, ``forecast``, and ``known``: the status of the study if there is one, else None,
        with ``stopped`` (by its user), ``budget_grew`` (by this file), and the ``budget`` that is then.

    Raises:
        UsageError: anything in the file, the data or the backbone is wrong, or has changed since the study
            of this name began.
        UnreachableError: a hub is needed and cannot be reached.
    """
    say = note or (lambda text: None)
    study = load_study(path)
    row, known = _known(study)
    say(f"reading the data and the backbone of the study {study.name}")
    with tempfile.TemporaryDirectory(prefix="sweeper-check-") as folder:
        return {**_check(study, row, Path(folder), measure, device, say), "known": known}


def _known(study: Study) -> tuple[StudyRow | None, dict[str, Any] | None]:
    """The study of this name and its status, if the store has one; the run would go on with it.

    Raises:
        UsageError: it was begun with another file, or is new and learns from a study that the store lacks, so
            that the run would be refused.
    """
    from sweeper.home import Home
    from sweeper.ledger import Ledger
    from sweeper.session import check_unchanged
    from sweeper.warmstart import find_earlier

    ledger = Ledger(Home.from_environment().store_url)
    if not ledger.database.is_made():
        find_earlier(None, study)
        return None, None
    row = ledger.find_study(study.name)
    if row is None:
        find_earlier(ledger, study)
        return None, None
    check_unchanged(row, study)
    status = ledger.status(study.name)
    beside = status["budget"]["trials"] - row.spec["budget"]["trials"]  # what was enqueued or is a retry
    return row, {
        **status,
        "budget": status["budget"] | {"trials": study.budget.trials + beside},
        "stopped": row.is_stopped,
        "unfinished": ledger.has_unfinished(study.name),
        "budget_grew": bool(difference(from_dict(row.spec, study.path), study)),
    }


def _check(
    study: Study,
    row: StudyRow | None,
    cache: Path,
    measure: bool,
    device: str | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    from sweeper import corners, data, space, task
    from sweeper.backbone import fingerprint, load_backbone, load_config, load_tokenizer, parameter_count
    from sweeper.check.forecast import measure_forecast
    from sweeper.device import choose, keep_freed_memory, measure_dtype
    from sweeper.frozen import check_frozen
    from sweeper.limits import Limits
    from sweeper.session import check_same, refuse_unsupported
    from sweeper.tasks import task_of

    keep_freed_memory()  # as workers do
    where = choose(device)
    config = load_config(study.backbone)
    check_frozen(study, fingerprint(study.backbone))
    corners.check_space(study, config)
    task.check_task(study, config)
    tables = data.read_tables(study, cache)
    prepared = data.prepare(study, tables, load_tokenizer(study.backbone), cache)
    corners.check_head(Limits(study, config, task.outputs(study.task.kind, prepared.label_names)))
    if row is not None:
        check_same(row, fingerprint(study.backbone), prepared.fingerprint)
    if row is not None:
        refuse_unsupported(row, where)
    given = study.dtype if row is None else row.dtype  # what it began with is what it goes on with
    dtype = given if given != "auto" else measure_dtype(where)
    kind = task_of(study.task.kind)
    model = load_backbone(study.backbone, dtype, where, kind.language_head)
    parameters = parameter_count(model)
    forecast = None
    if measure:
        say(f"measuring a few steps of the default configuration on {where}")
        forecast = measure_forecast(study, model, prepared, where).to_json()
    return {
        "study": study.name,
        "file": str(study.path),
        "backbone": {
            **study.backbone.to_dict(),
            "family": config.model_type,
            "parameters": parameters,
            "fingerprint": fingerprint(study.backbone),
        },
        "task": {
            **study.task.to_dict(),
            "reads": kind.read_by(study.task.pooling),
            "labels": prepared.label_names,
        },
        "data": {**prepared.report, "sources": _sources(study), "fingerprint": prepared.fingerprint},
        "space": {
            "size": space.size(study),
            "searched": _searched(study),
            "fixed": {name: spec.to_json() for name, spec in study.search.items() if isinstance(spec, Fixed)},
        },
        "sites": _sites(study, config),
        "adapter_parameters": _sizes(study, config, parameters),
        "default": _default(study, config),
        "budget": study.budget.to_dict(),
        "limits": study.limits.to_dict(),
        "sampler": study.sampler.to_dict(),
        "pruner": study.pruner.to_dict(),
        "seed": study.seed,
        "dtype": dtype,
        "forecast": forecast,
    }


def _sources(study: Study) -> dict[str, Any]:
    splits = {"train": study.data.train, "validation": study.data.validation, "test": study.data.test}
    return {name: split.to_dict() if isinstance(split, Source) else split for name, split in splits.items()}


def _searched(study: Study) -> dict[str, str]:
    """What varies, as people say it; the bits of a set of layers together."""
    found: dict[str, str] = {}
    for name in study.searched:
        whole, _, layer = name.rpartition(".")
        if not is_bit(name):
            found[name] = _words(study.search[name])
        else:
            found[whole] = f"{found[whole]}, {layer}" if whole in found else f"a bit for each of {layer}"
    return found


def _words(spec: Spec) -> str:
    """A space as people say it: ``4 to 256, log``, ``relu | gelu``."""
    if isinstance(spec, Choice):
        return " | ".join(str(list(value) if isinstance(value, tuple) else value) for value in spec.values)
    if isinstance(spec, Range):
        step = f", step {spec.step}" if spec.step is not None else ""
        return f"{spec.low} to {spec.high}{', log' if spec.log else ''}{step}"
    return str(spec.to_json())


def _sites(study: Study, config: Any) -> dict[str, list[str]]:
    """The modules of the backbone that each placement or method acts on, by name, for every set of layers.

    Of a ladder: the layers whose input it reads. A method that acts on no layer is not there.
    """
    from adapters.architectures import architecture_of, layer_count, layer_indices
    from adapters.methods import places_in
    from adapters.points import hook_point
    from adapters.shape import measuring, shape_of
    from sweeper import corners

    row, found = architecture_of(config), {}
    named = {pairs: name for name, pairs in study.placements.items()}
    for chosen in corners.every(study):
        if chosen.layers is None and not chosen.parts:
            continue
        layers = list(chosen.layers) if isinstance(chosen.layers, tuple) else chosen.layers
        name = named.get(chosen.placement or "", chosen.placement)
        parts = [name or chosen.method, *filter(None, [chosen.targets])]
        parts.append(f"of {len(chosen.parts)} adapters" if layers is None else str(layers))
        shape = shape_of(measuring(chosen), config)
        placed = [(place, row.part(place.layer, config)) for place in places_in(chosen, shape)]
        modules = [f"{part.path}.{hook_point(part.row, place).path}".rstrip(".") for place, part in placed]
        if chosen.method == "ladder":
            modules = [f"{row.layers}.{index}" for index in layer_indices(chosen.layers, layer_count(config))]
        found[", ".join(parts)] = modules
    return found


def _sizes(study: Study, config: Any, backbone_parameters: int) -> dict[str, Any]:
    from sweeper import corners

    smallest, largest = corners.extremes(study, config)
    return {
        "smallest": smallest,
        "largest": largest,
        "smallest_percent": 100.0 * smallest / backbone_parameters,
        "largest_percent": 100.0 * largest / backbone_parameters,
    }


def _default(study: Study, config: Any) -> dict[str, Any]:
    from adapters.architectures import hidden_size
    from sweeper import space

    return space.default_params(study, hidden_size(config))
