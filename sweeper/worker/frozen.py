"""What the frozen backbone makes of a study's texts, for a worker that begins."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sweeper.available import cpu_cores
from sweeper.console import to_stderr
from sweeper.device import set_threads
from sweeper.session import Session

if TYPE_CHECKING:
    from adapters.pack import Pack
    from sweeper.data import TaskData


def with_frozen_states(
    session: Session, data: TaskData, pack: Pack, given: int | None, stop: threading.Event
) -> TaskData:
    """The data with what the frozen backbone makes of it; without, if there is no room or ``stop`` is set."""
    import torch

    from sweeper import corners
    from sweeper.cache import FrozenCache, Layout, Stopped, budget_bytes

    row = session.row
    bare = Layout.of(data, row.backbone_fingerprint, row.dtype, pack.hidden_size)
    folder = session.home.cache / "frozen"
    layout = bare.within(
        budget_bytes(given, folder, bare), corners.depths(session.study, pack.backbone.config)
    )
    said = ""

    def say(progress: str) -> None:
        nonlocal said
        if progress != said and progress.endswith("0%"):
            to_stderr(f"computing the frozen part of the backbone, {progress}")
        said = progress

    threads = torch.get_num_threads()
    if pack.backbone.device.type == "cpu":
        set_threads(cpu_cores())  # the other workers of this machine wait for the states
    try:
        return FrozenCache(folder, layout).attach(data, pack, say, stop)
    except Stopped:
        return data
    except OSError as error:
        reason = error.strerror or error
        to_stderr(f"nothing of the frozen backbone is kept: {reason}")
        return data
    finally:
        set_threads(threads)
