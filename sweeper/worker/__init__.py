"""A worker: claim, train, record, tell, until nothing is left. Any number of them work on one study.

python -m sweeper.worker STUDY --device cpu
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from sweeper.asktell import Trials
from sweeper.checkpoint import CheckpointWriter
from sweeper.events import Event
from sweeper.ledger import LEASE_SECONDS, this_worker
from sweeper.session import Session, check_same, load_data, refuse_unsupported
from sweeper.slot import Job, Problem
from sweeper.train import train
from sweeper.worker.begin import Beginner
from sweeper.worker.frozen import with_frozen_states
from sweeper.worker.heartbeat import Heartbeat
from sweeper.worker.packsize import PackSize, memory_file
from sweeper.worker.rounds import TAKEN, Rounds
from sweeper.worker.systemmetrics import SystemMetrics

__all__ = ["TAKEN", "Options", "work"]


@dataclass(frozen=True)
class Options:
    """How a worker works.

    Args:
        device: ``cpu`` or ``cuda:0``.
        pack: how many trials it trains together; None to find the number with which it gets most done.
        cache_bytes: how much of the frozen states may be kept; 0 for nothing, None for a share of the disk.
        lease_seconds: how long a trial stays with a worker that shows no sign of life.
        confirm: train what confirms the study's winners, and nothing of the study itself.
    """

    device: str
    pack: int | None = None
    cache_bytes: int | None = None
    lease_seconds: float = LEASE_SECONDS
    confirm: bool = False


def work(
    session: Session,
    options: Options,
    stop: threading.Event,
    *,
    on_begin: Callable[[Job], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> None:
    """Train trials of a study until it has ended or ``stop`` is set; then the running ones are handed back.

    Args:
        on_begin: told of every trial before it is trained.
        on_event: told everything that training says, after it was written down.

    Raises:
        UsageError: the data or the backbone is not what the study began with, or the device lacks its dtype.
        UnreachableError: the store cannot be reached.
        SweeperError: the device failed in a way that only a new process mends.
    """
    from adapters.pack import Pack
    from sweeper.backbone import fingerprint, load_backbone
    from sweeper.device import describe
    from sweeper.tasks import task_of

    study, row, device = session.study, session.row, options.device
    refuse_unsupported(row, device)
    data = load_data(study, session.home)
    check_same(row, fingerprint(study.backbone), data.fingerprint)
    about = {
        "device": describe(device),
        "backbone": row.backbone_fingerprint,
        "data": row.data_fingerprint,
        "dtype": row.dtype,
    }
    size = PackSize(options.pack, memory_file(session.home.cache, about))
    language_head = task_of(study.task.kind).language_head
    pack = Pack(load_backbone(study.backbone, row.dtype, device, language_head), size.largest)
    data = with_frozen_states(session, data, pack, options.cache_bytes, stop)
    problem = Problem.of(study, data.label_names)
    trials = Trials(session.home, study, session.ledger.database.patience_seconds)
    with (
        Heartbeat(session.ledger, options.lease_seconds) as heartbeat,
        CheckpointWriter(session.home.checkpoints) as checkpoints,
    ):
        worker = Rounds(
            session,
            this_worker(device),
            trials,
            Beginner(session, trials, pack.backbone.config, problem.outputs),
            heartbeat,
            checkpoints,
            size,
            SystemMetrics(session.home.artifacts, device),
            stop,
            options.lease_seconds,
            options.confirm,
        )

        def supply() -> Job | None:
            job = worker.next_job()
            if job is not None and on_begin is not None:
                on_begin(job)
            return job

        while not worker.is_done():
            for event in train(pack, data, problem, supply, device=device):
                worker.handle(event)
                if on_event is not None:
                    on_event(event)
