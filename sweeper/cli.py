"""The commands. Each reads its arguments, calls what a Python caller could call, and prints the result."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sweeper import __version__, foreign_adapters
from sweeper.arguments import (
    CacheOption,
    Device,
    Devices,
    DryRun,
    Engine,
    ExportFolder,
    Format,
    Host,
    Json,
    LeaseSeconds,
    MaybeStudy,
    Measure,
    MovedBackbone,
    Out,
    PackOption,
    Pareto,
    Port,
    RayAddress,
    StudyFile,
    StudyName,
    TextsFile,
    Top,
    Trial,
    TrialNumber,
    Workers,
    example,
)
from sweeper.console import (
    CLOSED_PIPE,
    INTERRUPTED,
    ClosedPipeError,
    InterruptedByUser,
    Output,
    explain,
    open_streams,
    silence_closed_pipe,
    terminated_as_interrupted,
    wants_json,
)
from sweeper.errors import NothingSucceededError, SweeperError, UsageError
from sweeper.reading import add_reading
from sweeper.steering import add_to

app = typer.Typer(
    name="sweeper",
    no_args_is_help=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Finds the best adapter for a frozen transformer: searches configurations, trains each on one "
    "shared backbone, records everything in MLflow, and hands back the winner as files.",
    epilog="Start with `sweeper check FILE`, then `sweeper run FILE`.  \n"
    "`SWEEPER_HOME` (default `sweeps/`) is the folder where everything is kept; `SWEEPER_STORE`, "
    "`SWEEPER_ARTIFACTS` and `MLFLOW_TRACKING_URI` move its parts elsewhere.  \n"
    "Exit codes: 0 done · 1 failed · 2 wrong usage or study file · 3 no trial succeeded · "
    "4 store or tracking server unreachable · 130 interrupted.",
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> int | None:
    if version:
        Output().data(f"adapter-sweeper {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        Output().data(context.get_help())
        raise typer.Exit
    refusal = foreign_adapters()
    if refusal is not None and context.invoked_subcommand != "doctor":
        raise SweeperError(refusal)
    return None


@app.command(
    epilog=example("sweeper check studies/quickstart.yaml", "sweeper check my.yaml --no-measure --json")
)
def check(
    file: StudyFile,
    measure: Measure = True,
    device: Device = None,
    json: Json = False,
) -> None:
    """Validate a study file, its data and backbone, and print what would run. Makes no study.

    A backbone of the hub is downloaded into the hub's own cache.
    """
    from sweeper.check import check_study
    from sweeper.check.printed import print_check

    out = Output(json)
    result = check_study(file, measure=measure, device=device, note=out.note)
    if json:
        out.document(result)
    else:
        print_check(out, result)


@app.command(
    epilog=example(
        "sweeper run studies/quickstart.yaml", "sweeper run films.yaml --engine ray --ray-address auto"
    )
)
def run(
    file: StudyFile,
    device: Devices = None,
    workers: Workers = "auto",
    pack: PackOption = "auto",
    cache: CacheOption = "auto",
    lease_seconds: LeaseSeconds = 60.0,
    engine: Engine = "local",
    ray_address: RayAddress = None,
    json: Json = False,
) -> None:
    """Run a study, or go on with it where it stopped.

    The first Ctrl-C hands the running trials back, the second stops at once; the same command goes on from
    either. A study file that changed since is refused, unless only its budget grew.
    """
    from sweeper.engine.crew import WorkerOptions, parse_bytes, parse_count
    from sweeper.running import run_study

    options = WorkerOptions(
        parse_count("--workers", workers),
        parse_count("--pack", pack),
        parse_bytes("--cache", cache),
        lease_seconds,
    )
    run_study(Output(json), file, device or (), options, engine, ray_address)


@app.command(epilog=example("sweeper status", "sweeper status sst2 --json"))
def status(
    study: MaybeStudy = None,
    json: Json = False,
) -> None:
    """How far a study is; without a name, all studies."""
    from sweeper.lookup import open_ledger, study_name
    from sweeper.terminal import print_status, print_studies

    out, ledger = Output(json), open_ledger()
    if study is not None:
        found = ledger.status(study_name(ledger, study))
        out.document(found) if json else print_status(out, found)
        return
    every = [ledger.status(name) for name in ledger.studies()]
    out.document(every) if json else print_studies(out, every)


@app.command(epilog=example("sweeper trials sst2", "sweeper trials sst2 --json | jq '.[].objective'"))
def trials(study: StudyName, json: Json = False) -> None:
    """All trials of a study, in the order of their numbers; the reference runs come first.

    The table leaves out those that only wait for a worker, and says how many these are.
    """
    from sweeper.lookup import open_ledger, study_name
    from sweeper.terminal import print_trials

    out, ledger = Output(json), open_ledger()
    found = ledger.trials(study_name(ledger, study))
    out.document([trial.to_json() for trial in found]) if json else print_trials(
        out, [trial.to_json() for trial in found]
    )


@app.command(epilog=example("sweeper show sst2 7", "sweeper show sst2 reference-head --json"))
def show(
    study: StudyName,
    trial: Trial,
    json: Json = False,
) -> None:
    """One trial: its configuration, its result, its curve."""
    from sweeper.lookup import find_trial, open_ledger, study_name
    from sweeper.terminal import print_trial

    out, ledger = Output(json), open_ledger()
    name = study_name(ledger, study)
    found = find_trial(ledger.trials(name), name, trial)
    if json:
        out.document(found.to_json())
    else:
        rows = [row for row in ledger.metric_rows(found.place_id) if row.attempt == found.attempt]
        print_trial(out, found.to_json(), [row.value for row in rows if row.key == "objective"])


@app.command(epilog=example("sweeper best sst2", "sweeper best sst2 --top 5 --json"))
def best(
    study: StudyName,
    top: Top = None,
    json: Json = False,
) -> None:
    """The best trial of a study, the confirmed one where there is one.

    Of several objectives: the trials that no other beats in all of them. Exit code 3 if none has succeeded.
    """
    from sweeper.confirmed import said_beside
    from sweeper.finalists import best_document, preferred, preferred_front
    from sweeper.front import objectives_of
    from sweeper.lookup import open_ledger, study_name
    from sweeper.terminal import print_trial, print_trials
    from sweeper.tracking.links import links_on_server

    out, ledger = Output(json), open_ledger()
    name = study_name(ledger, study)
    several = top is None and len(objectives_of(ledger.study(name).spec)) > 1
    found, said = preferred_front(ledger, name) if several else preferred(ledger, name, top or 1)
    if not found:
        raise NothingSucceededError(
            f"no trial of the study {name!r} has succeeded so far: see `sweeper trials {name}`"
        )
    for what, address in links_on_server(ledger, name).items():
        out.note(f"{what} in MLflow: {address}")
    if json:
        one = top is None and not several
        out.document(best_document(found[0], said) if one else [trial.to_json() for trial in found])
    elif top is None and not several:
        print_trial(out, found[0].to_json())
    else:
        print_trials(out, [trial.to_json() for trial in found])
    out.note(said_beside(said, name, ledger.study(name).spec))


@app.command(
    epilog=example(
        "sweeper export sst2 --out best",
        "sweeper export sst2 --out three --top 3",
        "sweeper export sst2 --out for-adapterhub --format adapterhub",
    )
)
def export(
    study: StudyName,
    out: Out,
    top: Top = None,
    trial: TrialNumber = None,
    pareto: Pareto = False,
    format: Format = "sweeper",
    json: Json = False,
) -> None:
    """Write the best adapter as files that load anywhere: weights, configuration, metrics, card."""
    from sweeper.confirmed import said_beside
    from sweeper.export import export_study
    from sweeper.finalists import verdict
    from sweeper.home import Home
    from sweeper.lookup import open_ledger
    from sweeper.terminal import print_exports

    output, ledger = Output(json), open_ledger()
    home = Home.from_environment()
    exported = export_study(ledger, home, study, out, top=top, trial=trial, pareto=pareto, format=format)
    if top is not None and len(exported) < top:
        output.note(
            f"--top {top}: {len(exported)} configurations have succeeded, and all of them are written"
        )
    if trial is None:
        output.note(said_beside(verdict(ledger, study), study, ledger.study(study).spec))
    if json:
        output.document([entry.to_json() for entry in exported])
    else:
        print_exports(output, exported)


@app.command(epilog=example("sweeper predict best texts.txt", "sweeper predict best reviews.csv --json"))
def predict(
    folder: ExportFolder,
    file: TextsFile,
    backbone: MovedBackbone = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Predict with an exported adapter: labels and probabilities, or a value, for each row in its order."""
    from sweeper.data.texts import read_texts
    from sweeper.export.predict import load_exported
    from sweeper.terminal import print_predictions

    out = Output(json)
    predictor = load_exported(folder, backbone=backbone, device=device)
    texts = read_texts(file, predictor.text_columns, predictor.kind)
    rows = predictor.predict([text if len(text) > 1 else text[0] for text in texts])
    if json:
        out.document(rows)
    else:
        print_predictions(out, rows, predictor.text_columns, texts)


add_reading(app)
add_to(app)


@app.command(epilog=example("sweeper ui", "sweeper ui sst2 --port 5001"))
def ui(
    study: MaybeStudy = None,
    host: Host = "127.0.0.1",
    port: Port = 5000,
) -> None:
    """Open the studies in MLflow's own pages. Ctrl-C ends it."""
    from sweeper.home import Home
    from sweeper.lookup import open_ledger, study_name
    from sweeper.ui import serve

    ledger = open_ledger()
    name = study_name(ledger, study) if study is not None else None
    serve(Home.from_environment(), host=host, port=port, study=name)


@app.command(epilog=example("sweeper migrate"))
def migrate(json: Json = False) -> None:
    """Make the tables of the store, or bring older ones up to date. Stop the workers first.

    `sweeper run` does so by itself; a server that many workers share is better prepared once, before them.
    """
    from sweeper.home import Home
    from sweeper.ledger import shown_url
    from sweeper.session import prepare_store

    out, home = Output(json), Home.from_environment()
    made = {"store": shown_url(home.store_url), "version": prepare_store(home)}
    out.document(made) if json else out.data(
        f"the store {made['store']} has tables of version {made['version']}"
    )


@app.command(epilog=example("sweeper gc --dry-run", "sweeper gc --json"))
def gc(dry_run: DryRun = False, json: Json = False) -> None:
    """Remove caches and checkpoints that no study of the store needs; results are never touched."""
    from sweeper.collect import collect
    from sweeper.home import Home
    from sweeper.lookup import open_ledger
    from sweeper.terminal import print_leftovers

    out = Output(json)
    collected = collect(open_ledger(), Home.from_environment(), dry_run=dry_run)
    out.document(collected.to_json()) if json else print_leftovers(out, collected)


@app.command(epilog=example("sweeper doctor", "sweeper doctor --json"))
def doctor(json: Json = False) -> int:
    """Check this machine: versions, devices, store, tracking, disk. Exit code 1 if something is broken."""
    from sweeper.doctor import examine
    from sweeper.terminal import print_findings

    out = Output(json)
    findings = examine()
    out.document([finding.to_json() for finding in findings]) if json else print_findings(out, findings)
    return 1 if any(finding.state == "broken" for finding in findings) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; no exception leaves it.

    Args:
        arguments: without the program's name; default: those of the process.
    """
    open_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = wants_json(given)
    try:
        with terminated_as_interrupted():
            code = app(args=given, prog_name="sweeper", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):  # the second where somebody was asked something
        code = INTERRUPTED
    except InterruptedByUser as interruption:
        Output(as_json).note(str(interruption))
        return INTERRUPTED
    except ClosedPipeError:
        silence_closed_pipe()
        return CLOSED_PIPE
    except typer.TyperException as error:  # wrong usage, found by the parser
        return explain(_usage(error), as_json)
    except Exception as error:  # the one place that turns errors into messages
        return explain(error, as_json)
    if code == INTERRUPTED:
        Output(as_json).note("interrupted")
    return code if isinstance(code, int) else 0


def _usage(error: typer.TyperException) -> UsageError:
    message = error.format_message().rstrip(".")
    message += "" if message.endswith("?") else "."
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "sweeper"
    return UsageError(f"{message} See `{command} --help`.")


if __name__ == "__main__":
    sys.exit(main())
