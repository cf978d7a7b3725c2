"""The weights of a trial as files in the artifact folder, and their digests for the ledger."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.disk import sha256
from sweeper.ledger import Claim

if TYPE_CHECKING:
    from torch import nn

    import adapters

ADAPTER_FILE, HEAD_FILE = "adapter.safetensors", "head.safetensors"


def write_weights(
    artifacts: Path, claim: Claim, adapter: adapters.Adapter | None, head: nn.Linear
) -> dict[str, str]:
    """Write ``STUDY/trial-0007/attempt-1/{adapter,head}.safetensors``; without an adapter the head alone.

    Every attempt has a folder of its own, so that a worker that lost its place can only write beside, never
    over. What fails halfway is taken away again.

    Returns:
        sha256 of each file, by its path relative to ``artifacts``.

    Raises:
        OSError: the files cannot be written; the disk may be full.
        AdapterError: weights are not finite.
    """
    from safetensors.torch import save

    import adapters as library

    relative = Path(claim.study, claim.name, f"attempt-{claim.attempt}")
    folder = artifacts / relative
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
        _write(folder / HEAD_FILE, save(tensors))
        if adapter is not None:
            library.save(adapter, folder / ADAPTER_FILE)
        return {str(relative / path.name): sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
