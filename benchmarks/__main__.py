"""Every benchmark of packed training, one after the other: `make bench`.

Options are passed on to each of them; `python -m benchmarks.NAME --help` tells what one takes besides.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from benchmarks.common import ROOT, parse, parser

RUNS = {
    "makespan-all": ["makespan", "--space", "all"],
    "makespan-upper": ["makespan", "--space", "upper"],
    "roofline": ["roofline"],
    "padding": ["padding"],
    "memory": ["memory"],
    "scatter": ["scatter"],
    "ladder": ["ladder"],
    "overhead": ["overhead"],
    "insertions": ["insertions"],
    "inference": ["inference"],
}


def main() -> int:
    """Run what was asked for; the exit code of the first that fails."""
    made = parser(__doc__, rounds=3, rows=1024, validation_rows=256)
    made.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), help="some of them")
    made.add_argument("--makespan", default="", help='more options for it, such as --makespan "--trials 4"')
    made.add_argument("--folder", type=Path, help="where the makespan keeps its measurements, to go on from")
    arguments = sys.argv[1:]
    settings = parse(made, arguments)
    for name in settings.only:
        module, *own = RUNS[name]
        if module == "makespan":
            own += ["--folder", str(settings.folder.resolve() / name)] if settings.folder else []
            own += shlex.split(settings.makespan)
        print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{module}", *own, *passed_on(arguments)]
        done = subprocess.run(command, cwd=ROOT)
        if done.returncode:
            print(f"error: {name} ended with exit code {done.returncode}", file=sys.stderr)
            return done.returncode
    return 0


def passed_on(arguments: list[str]) -> list[str]:
    """The command line without the options that are read here: what every benchmark takes."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--only", nargs="+", choices=RUNS)
    own.add_argument("--makespan")
    own.add_argument("--folder")
    return own.parse_known_args(arguments)[1]


if __name__ == "__main__":
    sys.exit(main())
