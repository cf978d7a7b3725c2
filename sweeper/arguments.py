"""The arguments and options of the commands: their names, their environment variables, their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sweeper.lookup import complete_study

LONGEST_LEASE = 7 * 86_400.0


def _lease(seconds: float) -> float:
    if not seconds <= LONGEST_LEASE:  # nor is it no number at all
        raise typer.BadParameter(f"{seconds:g} is not a number of seconds from 1 to {LONGEST_LEASE:.0f}.")
    return seconds


StudyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A study file (YAML).", show_default=False)]
StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="The name of a study (`sweeper status` lists them).",
        autocompletion=complete_study,
    ),
]
MaybeStudy = Annotated[
    str | None,
    typer.Argument(
        metavar="[STUDY]", help="The name of a study; leave it out for all.", autocompletion=complete_study
    ),
]
Trial = Annotated[str, typer.Argument(metavar="TRIAL", help="A trial number, or `reference-head`.")]
ExportFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `sweeper export` wrote.")]
TextsFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Texts: .txt with one a line, or .csv .tsv .jsonl .parquet with the text columns.",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", envvar="SWEEPER_JSON", help="Print JSON on stdout; errors are JSON on stderr."),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", envvar="SWEEPER_DEVICE", metavar="DEVICE", help="`cpu` or `cuda:0`; default: the first."
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        envvar="SWEEPER_DEVICE",
        metavar="DEVICE",
        help="`cpu` or `cuda:0`; repeat it for several. Default: all CUDA devices, or the CPU.",
    ),
]
Workers = Annotated[
    str,
    typer.Option(
        "--workers",
        envvar="SWEEPER_WORKERS",
        metavar="N",
        help="Workers a device. `auto`: one a CUDA device; on a CPU up to one a core, as many as "
        "fit the free memory, sharing its threads. Limits of a container or a batch job count. "
        "`OMP_NUM_THREADS`, where it is set, is taken for the number of cores.",
    ),
]
PackOption = Annotated[
    str,
    typer.Option(
        "--pack",
        envvar="SWEEPER_PACK",
        metavar="K",
        help="Trials that a worker trains together. `auto` finds the number with which it gets most done.",
    ),
]
CacheOption = Annotated[
    str,
    typer.Option(
        "--cache",
        envvar="SWEEPER_CACHE",
        metavar="SIZE",
        help="How much of what the frozen layers compute is kept, such as `4GiB`. `auto`: up to 8 GiB and "
        "half of what the disk has free; `off`: nothing.",
    ),
]
LeaseSeconds = Annotated[
    float,
    typer.Option(
        "--lease-seconds",
        envvar="SWEEPER_LEASE_SECONDS",
        min=1.0,
        callback=_lease,
        metavar="SECONDS",
        help="How long a trial stays with a worker that shows no sign of life.",
    ),
]
Measure = Annotated[
    bool,
    typer.Option(
        "--measure/--no-measure",
        envvar="SWEEPER_MEASURE",
        help="Train a few real steps to forecast time and memory. Without, all is only loaded.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", envvar="SWEEPER_DRY_RUN", help="Only say what would be removed."),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", envvar="SWEEPER_OUT", metavar="DIR", help="A new folder, or that of an earlier export."
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        "--top",
        envvar="SWEEPER_TOP",
        min=1,
        metavar="K",
        help="The K best, best first (`best`: a list; `export`: each in a folder DIR/trial-0007).",
    ),
]
TrialNumber = Annotated[
    str | None,
    typer.Option("--trial", envvar="SWEEPER_TRIAL", metavar="N", help="That trial, in DIR itself."),
]
Pareto = Annotated[
    bool,
    typer.Option(
        "--pareto",
        envvar="SWEEPER_PARETO",
        help="Every trial that no other beats in all objectives, each in a folder DIR/trial-0007.",
    ),
]
Format = Annotated[
    Literal["sweeper", "adapterhub", "peft"],
    typer.Option(
        "--format",
        envvar="SWEEPER_FORMAT",
        metavar="FORMAT",
        help="Whose files: `sweeper`, `adapterhub` (bottleneck, LoRA, prefix) or `peft` (LoRA, DoRA, IA3, "
        "prefix, prompt); see docs/interop.md.",
    ),
]
Finalists = Annotated[
    int,
    typer.Option(
        "--top", envvar="SWEEPER_TOP", min=1, metavar="K", help="How many of the best trials are finalists."
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        "--seeds",
        envvar="SWEEPER_SEEDS",
        min=1,
        metavar="N",
        help="How often each is trained, anew each time.",
    ),
]
References = Annotated[
    bool,
    typer.Option(
        "--references",
        envvar="SWEEPER_REFERENCES",
        help="Fine-tune the whole backbone as well: at three learning rates, then at the best of them.",
    ),
]
MovedBackbone = Annotated[
    Path | None,
    typer.Option(
        "--backbone",
        envvar="SWEEPER_BACKBONE",
        metavar="DIR",
        help="Where the backbone is now, if it has moved.",
    ),
]
Host = Annotated[
    str,
    typer.Option(
        "--host",
        envvar="SWEEPER_HOST",
        help="The address to listen on. Others need a login there: admin, and SWEEPER_UI_PASSWORD.",
    ),
]
Port = Annotated[
    int, typer.Option("--port", envvar="SWEEPER_PORT", min=0, max=65535, help="The port; 0 for a free one.")
]

Engine = Annotated[
    Literal["local", "ray"],
    typer.Option(
        "--engine",
        envvar="SWEEPER_ENGINE",
        metavar="ENGINE",
        help="Who starts workers: `local`, this machine, or `ray`, a Ray cluster (see docs/clusters.md).",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        envvar="SWEEPER_RAY_ADDRESS",
        metavar="ADDRESS",
        help="`HOST:PORT` of a Ray cluster's head, or `auto` on a machine of it. Default: a cluster of this "
        "machine alone, for as long as the run.",
    ),
]

Trials = Annotated[
    list[str] | None,
    typer.Argument(metavar="[TRIAL…]", help="Numbers of trials that failed.", show_default=False),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        envvar="SWEEPER_SET",
        metavar="NAME=VALUE",
        help="A parameter and its value; repeat it for several. The sampler draws the others.",
    ),
]
AllFailed = Annotated[
    bool,
    typer.Option("--failed", envvar="SWEEPER_FAILED", help="Every failed trial that has no retry yet."),
]
Rebuild = Annotated[
    bool,
    typer.Option(
        "--rebuild",
        envvar="SWEEPER_REBUILD",
        help="Put what MLflow has of the study into its bin, and draw all of it anew.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", envvar="SWEEPER_YES", help="Do not ask.")]


ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--out",
        envvar="SWEEPER_OUT",
        metavar="FILE",
        help="The page; one of that name is replaced. Default: STUDY-report.html in this folder.",
    ),
]
PageFile = Annotated[
    Path | None,
    typer.Option(
        "--out",
        envvar="SWEEPER_OUT",
        metavar="FILE",
        help="Write a page as well; one of that name is replaced.",
    ),
]
StudyNames = Annotated[
    list[str],
    typer.Argument(
        metavar="STUDY STUDY…", help="The names of two or more studies.", autocompletion=complete_study
    ),
]


def example(*lines: str) -> str:
    """The end of a command's help, as Markdown."""
    return "Examples:  \n" + "  \n".join(f"`{line}`" for line in lines)
