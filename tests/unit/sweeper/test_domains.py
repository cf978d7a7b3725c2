"""The four domains: only what is pinned is unpacked, what is there is not fetched again. No network."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import domains, quickstart
from sweeper.errors import SweeperError
from tests.rated_archive import Index, write_archive

ARCHIVE = "vaderSentiment-0.5.zip"
RATED = {
    "products": "1\t2.5\tA fine  phone.\r\n2\t-3\tIt broke.\r\n3\t0.1\tBlack.\r\n",
    "tweets": "1\t1.0\t:) \r\n",
    "editorials": "1\t-0.6\tA poor plan.\r\n2\t0.9\tA poor plan.\r\n",
}
FILMS = "sentence\tlabel\nA film.\tpositive\n"
WRITTEN = {
    "products": "sentence\tlabel\nA fine phone.\tpositive\nIt broke.\tnegative\n",
    "tweets": "sentence\tlabel\n:)\tpositive\n",
    "editorials": "sentence\tlabel\nA poor plan.\tnegative\n",
}


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of the same build as the real one, pinned in its place; of the backbone nothing is asked."""
    path = write_archive(tmp_path / ARCHIVE, RATED)
    pin(path, monkeypatch)
    for name, text in WRITTEN.items():
        member, _ = domains.DOMAINS[name]
        monkeypatch.setitem(domains.DOMAINS, name, (member, hashlib.sha256(text.encode()).hexdigest()))
    monkeypatch.setattr(quickstart, "BACKBONE_FILES", {})
    monkeypatch.setattr(quickstart, "FILMS_SHA256", hashlib.sha256(FILMS.encode()).hexdigest())
    return path


def pin(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = replace(quickstart.FILMS, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    for module in (quickstart, domains):
        monkeypatch.setattr(module, "FILMS", pinned)


def there(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in folder.glob("*.tsv")}


def test_what_is_made_and_that_it_is_fetched_once(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index, folder = Index(archive), tmp_path / "data"
    domains.domains(folder, index)
    assert there(folder) == {**WRITTEN, "films": FILMS} and index.asked == 2
    assert not list(tmp_path.rglob("escaped.txt"))
    domains.domains(folder, index)
    assert index.asked == 2
    (folder / "tweets.tsv").write_text("torn")
    domains.domains(folder, index)
    assert there(folder) == {**WRITTEN, "films": FILMS} and index.asked == 3
    said = capsys.readouterr()
    assert said.out == "" and "tweets.tsv" in said.err


@pytest.mark.parametrize(
    ("rated", "says"),
    [
        ({**RATED, "editorials": "1\t2\tAnother.\r\n"}, "is pinned"),
        ({name: RATED[name] for name in ("products", "tweets")}, "does not hold .*nytEditorial"),
    ],
)
def test_what_came_is_not_what_is_pinned(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch, rated: dict[str, str], says: str
) -> None:
    pin(write_archive(archive, rated), monkeypatch)
    with pytest.raises(SweeperError, match=says):
        domains.domains(tmp_path / "data", Index(archive))
    assert "editorials" not in there(tmp_path / "data")
    assert not [
        path for path in (tmp_path / "data").iterdir() if path.suffix != ".tsv" and path.name != ".lock"
    ]


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 2), (["a", "b"], 2)])
def test_the_command_line_takes_one_folder(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert domains.main(arguments) == code
    assert capsys.readouterr().err == "error: usage: python -m sweeper.domains FOLDER\n"
