"""``sweeper migrate``: both kinds of tables, on an empty store and an older one, any number of times."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from sweeper.cli import main
from sweeper.home import Home
from sweeper.ledger import Ledger
from sweeper.ledger.schema import VERSION, VERSION_TABLE
from sweeper.session import prepare_store


def home_of(url: str, folder: Path) -> Home:
    return Home.from_environment({"SWEEPER_HOME": str(folder), "SWEEPER_STORE": url})


def optuna_version(url: str) -> str:
    with create_engine(url).connect() as connection:
        return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


def test_it_makes_our_tables_and_optuna_s_and_can_be_repeated(url: str, tmp_path: Path) -> None:
    home = home_of(url, tmp_path)
    assert prepare_store(home) == VERSION
    before = set(inspect(create_engine(url)).get_table_names())
    assert {VERSION_TABLE, "places", "studies", "trials", "trial_params"} <= before
    assert prepare_store(home) == VERSION
    assert set(inspect(create_engine(url)).get_table_names()) == before
    assert Ledger(url).studies() == []


def test_several_at_once_do_no_harm(url: str, tmp_path: Path) -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.append(prepare_store(home_of(url, tmp_path)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [VERSION] * 4


def test_optuna_s_tables_of_an_older_version_are_brought_up_to_date(url: str, tmp_path: Path) -> None:
    prepare_store(home_of(url, tmp_path))
    newest = optuna_version(url)
    # As the version before left them: its last step adds nothing but an index.
    with create_engine(url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v3.0.0.d'"))
    prepare_store(home_of(url, tmp_path))
    assert optuna_version(url) == newest != "v3.0.0.d"


def test_tables_of_a_newer_version_are_left_alone(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path))
    monkeypatch.setenv("SWEEPER_STORE", url)
    assert main(["migrate", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["version"] == VERSION and printed["store"]
    with create_engine(url).begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    assert main(["migrate", "--json"]) == 1
    said = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]["message"]
    assert "version 9999" in said and "install" in said
