"""What frozen adapters of three domains are worth on a fourth: `python -m benchmarks.fusion`.

Through the command line, in a folder of its own: a study and an export for films, products and tweets each;
then editorials, of which 420 sentences are trained on, by a fusion of the three, by a bottleneck alone, and
by a bottleneck stacked on one of the three, four trials each. What wins a study is trained anew
(`sweeper confirm`) and read on test rows that no search has seen. The study files are those in studies/.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import QUICKSTART, ROOT, cores, processor, table

DOMAINS = ("films", "products", "tweets")
COMPARED = {
    "fusion": "fusion of three frozen adapters",
    "fusion-single": "one adapter, trained on the target",
    "fusion-stack": "bottleneck on the frozen adapter for films",
}


def main() -> int:
    """Run every study and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="fresh seeds of each winner (default: 3)")
    parser.add_argument("--workers", type=int, default=cores(), help="of a study (default: one a core)")
    parser.add_argument("--folder", type=Path, help="keep everything here, and go on with what is there")
    settings = parser.parse_args()
    for name in ("films", "products", "tweets", "editorials"):
        if not (QUICKSTART / f"{name}.tsv").is_file():
            parser.error(f"there is no {name}.tsv: `python -m sweeper.domains {QUICKSTART}` fetches it")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fusion-") as scratch:
        folder = (settings.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        rows = measured(folder, settings)
    minutes = (time.perf_counter() - started) / 60
    print(f"{processor()}, {cores()} cores; {settings.workers} workers; all of it took {minutes:.1f} minutes")
    print(table(("on editorials", "test accuracy", "seeds", "sd", "validation", "trained parameters"), rows))
    return 0


def measured(folder: Path, settings: argparse.Namespace) -> list[list[str]]:
    """A row of the table for the head alone and for each of what is compared."""
    workers = ("--workers", str(settings.workers))
    for domain in DOMAINS:
        sweeper(folder, "run", write_study(folder, f"fusion-{domain}"), *workers)
        sweeper(folder, "export", f"fusion-{domain}", "--out", f"fusion/{domain}")
    found = {}
    for name in COMPARED:
        sweeper(folder, "run", write_study(folder, name), *workers)
        confirm = ("confirm", name, "--top", "1", "--seeds", str(settings.seeds), *workers, "--json")
        found[name] = json.loads(sweeper(folder, *confirm))
    head = row("head alone", found["fusion-single"]["head"])
    return [head, *(row(what, found[name]["winner"]) for name, what in COMPARED.items())]


def write_study(folder: Path, name: str) -> str:
    """A study of studies/, with absolute paths of backbone and data, in the folder; its file's name."""
    content = yaml.safe_load((ROOT / "studies" / f"{name}.yaml").read_text(encoding="utf-8"))
    content["backbone"]["model"] = str(QUICKSTART / "backbone")
    train = content["data"]["train"]
    train["path"] = str(QUICKSTART / Path(train["path"]).name)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return f"{name}.yaml"


def sweeper(folder: Path, *arguments: str) -> str:
    """One command in a folder; what it prints, with its messages passed through."""
    environment = {**os.environ, "SWEEPER_HOME": str(folder / "sweeps"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sweeper", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} ended with exit code {done.returncode}")
    return done.stdout


def row(what: str, found: dict[str, Any]) -> list[str]:
    """A line of the table."""
    test = found["test"]
    sd = "-" if test["sd"] is None else f"{test['sd']:.4f}"
    mean, validation = f"{test['mean']:.4f}", f"{found['validation']['mean']:.4f}"
    return [what, mean, str(found["seeds"]), sd, validation, f"{found['trainable_parameters']:,}"]


if __name__ == "__main__":
    sys.exit(main())
