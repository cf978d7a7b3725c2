"""The ledger alone: how many trials a second several processes reserve, attach and record."""

from __future__ import annotations

import hashlib
import multiprocessing
import queue
import time
from multiprocessing.synchronize import Barrier
from typing import Any

from benchmarks.scale.stores import HEAD_PARAMETERS, make_study
from sweeper.ledger import Attached, Ledger, Result, this_worker

_PARAMS = {"bottleneck_dim": 24, "activation": "gelu", "learning_rate": 1e-3}
_START_SECONDS = 300.0
_IDLE_SECONDS = 0.01
"""How long a process without a place waits; a worker's shortest wait is a hundred times that."""


def ledger_rate(url: str, name: str, processes: int, trials: int) -> float:
    """Trials a second, from the moment all processes are ready to the last result.

    Raises:
        SystemExit: a process failed, or a trial was lost or done twice.
    """
    make_study(url, name, trials)
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=_work, args=(url, name, ready, answers)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    try:
        found = [answers.get(timeout=_START_SECONDS) for _ in workers]
    except queue.Empty:
        raise SystemExit(f"error: a process did not end within {_START_SECONDS:.0f} s") from None
    finally:
        for worker in workers:
            worker.join(timeout=5)
            if worker.is_alive():
                worker.kill()
    done = sum(count for count, _, _ in found)
    ledger = Ledger(url)
    complete = ledger.count(name, "complete")
    ledger.close()
    if not done == complete == trials:
        raise SystemExit(f"error: {done} results of {trials} trials were written, and {complete} are there")
    return done / (max(end for _, _, end in found) - min(start for _, start, _ in found))


def _work(url: str, name: str, ready: Barrier, answers: Any) -> None:
    ledger, me = Ledger(url), this_worker("cpu")
    ledger.study(name)  # connected before the clock starts
    ready.wait(_START_SECONDS)
    start, count = time.monotonic(), 0
    while True:
        claim = ledger.reserve(name, me)
        if claim is None:
            # The first place goes first alone; nobody else is given one before it has its number.
            if ledger.end_if_done(name):
                break
            time.sleep(_IDLE_SECONDS)
            continue
        number = claim.place_id
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        ledger.attach(claim, Attached(number, number, _PARAMS, digest, 18_816, HEAD_PARAMETERS))
        ledger.record_result(claim, Result("complete", 0.8, {"accuracy": 0.8, "loss": 0.4}, 1.0))
        count += 1
    answers.put((count, start, time.monotonic()))
    ledger.close()
