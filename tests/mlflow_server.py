"""A real MLflow server for tests, and what MLflow has of a study, as plain values that compare."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.mlflow_tables import put_mlflow_tables


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path, *hosts: str) -> Iterator[str]:
    """The address of a server that keeps everything in ``folder``; it ends with the block.

    Args:
        hosts: what it is called besides, with the port.
    """
    port = free_port()
    put_mlflow_tables(folder / "server.db")
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"),
        *("--serve-artifacts", "--artifacts-destination", str(folder / "files")),
        *("--allowed-hosts", ",".join((f"127.0.0.1:{port}", *hosts))),
    ]
    variables = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/health", server)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    while True:
        assert server.poll() is None, "the MLflow server has ended"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)


def picture_of(uri: str, name: str = "films") -> dict[str, Any]:
    """All that MLflow has of a study, without the ids that it gave: the same picture compares equal."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    names = {run.info.run_id: run.info.run_name for run in runs}
    assert len(set(names.values())) == len(names), f"a run was drawn twice: {sorted(names.values())}"

    def unnamed(text: str) -> str:
        """A text with the names of runs in place of their ids, and without that of the experiment."""
        text = re.sub(r"(#/experiments/|experiments=%5B%22)[0-9]+", r"\1ID", text)
        for run_id, name in names.items():
            text = text.replace(run_id, name)
        return text

    picture: dict[str, Any] = {"tags": {key: unnamed(value) for key, value in experiment.tags.items()}}
    for run in runs:
        tags = {key: unnamed(value) for key, value in run.data.tags.items()}
        # Another client gets the same bytes; a folder comes with all that is in it.
        there = client.list_artifacts(run.info.run_id)
        top = Path(client.download_artifacts(run.info.run_id, "")) if there else None
        files = {
            str(file.relative_to(top)): file.read_bytes()
            for file in sorted(top.rglob("*") if top is not None else ())
            if file.is_file()
        }
        picture[names[run.info.run_id]] = {
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "tags": tags,
            "params": dict(run.data.params),
            "latest": dict(run.data.metrics),
            "curves": {
                key: [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, key)]
                for key in run.data.metrics
            },
            "data": {
                (used.dataset.name, used.dataset.digest, used.dataset.source, used.tags[0].value)
                for used in run.inputs.dataset_inputs
            },
            "files": files,
        }
    return picture
