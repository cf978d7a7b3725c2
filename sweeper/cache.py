"""What the frozen backbone makes of a study's texts, computed once and shared by all workers of a machine.

    cache = FrozenCache(folder, layout)
    data = cache.attach(data, pack, print)     # builds what is missing, or waits for who is building it

A file for each split, depth and tensor, ``[tokens, hidden_size]`` in the order of the texts, memory-mapped:
as long as they fit, they stay in memory, once for all workers. They are built by one process under a lock,
beside their place, and renamed when they are whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adapters.depth import EMBEDDED, Depth, States
from adapters.pack import FlatBatch, Pack
from sweeper.batches import evaluation_batches, gather
from sweeper.data import Split, TaskData
from sweeper.device import DTYPES
from sweeper.disk import bytes_below, free_bytes
from sweeper.evaluate import EVALUATION_TOKENS

DEFAULT_BYTES = 8 * 2**30
_CHUNK_BYTES = 2**24
_WAIT_SECONDS = 0.5
FORMAT = 1
"""Counted up when the same backbone and data would give other files."""
_WHOLE, _BUILDING = "whole.json", ".building-"


@dataclass(frozen=True)
class Layout:
    """What is kept, and of what.

    Args:
        backbone, data: fingerprints.
        dtype: of the backbone.
        hidden_size: of the backbone.
        tokens: of all splits that are cached.
        depths: at which states are kept, the deepest first.
    """

    backbone: str
    data: str
    dtype: str
    hidden_size: int
    tokens: int
    depths: tuple[Depth, ...] = ()

    @classmethod
    def of(cls, data: TaskData, backbone: str, dtype: str, hidden_size: int) -> Layout:
        """The layout of a study's data, without any depth yet."""
        tokens = len(data.train.input_ids) + len(data.validation.input_ids)
        return cls(backbone, data.fingerprint, dtype, hidden_size, tokens)

    @property
    def key(self) -> str:
        """A name for the folder: another backbone, tokenizer, data or dtype is another cache."""
        about = [FORMAT, self.backbone, self.data, self.dtype]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]

    def bytes_of(self, depth: Depth) -> int:
        """Size of the states at a depth."""
        return depth.tensors * self.tokens * self.hidden_size * DTYPES[self.dtype].itemsize

    @property
    def bytes(self) -> int:
        """Size of all that is kept."""
        return sum(self.bytes_of(depth) for depth in self.depths)

    def within(self, budget_bytes: int, uses: Mapping[tuple[Depth, ...], float]) -> Layout:
        """With those depths that save most for a byte, as long as they fit a budget.

        A trial whose depth is left out begins at the next one below; the depths of a ladder are of use only
        together. For one that begins at depth 0 nothing is kept: those states are a look-up away.

        Args:
            uses: how many trials are expected to read each set of depths; see :func:`adapters.depth.reads`.
        """
        worth = {
            reads: count * reads[-1].layers / sum(depth.tensors for depth in reads)
            for reads, count in uses.items()
            if reads[-1] > EMBEDDED
        }
        chosen: set[Depth] = set()
        left = budget_bytes
        for reads in sorted(worth, key=lambda reads: (worth[reads], reads), reverse=True):
            size = sum(self.bytes_of(depth) for depth in set(reads) - chosen)
            if size <= left:
                chosen |= set(reads)
                left -= size
        return replace(self, depths=tuple(sorted(chosen, reverse=True)))


class Stopped(Exception):
    """Somebody asked for an end before the states were there."""


class FrozenCache:
    """The frozen states of one study's data on this machine.

    Args:
        folder: of all such caches.
        layout: what is kept; see :meth:`Layout.within`.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._place = folder / layout.key
        self._layout = layout

    def attach(
        self,
        data: TaskData,
        pack: Pack,
        advance: Callable[[str], None],
        stop: threading.Event | None = None,
    ) -> TaskData:
        """The data with its frozen states; what is missing is built first, by one process at a time.

        Args:
            data: of the study.
            pack: the backbone; what is in its slots does not matter.
            advance: told now and then how far the building is, in words.
            stop: ends the building at its next batch, and the waiting for another process that builds.

        Raises:
            OSError: the states cannot be written; the disk may be full. Nothing is left behind.
            Stopped: ``stop`` was set. Nothing half-built is left behind.
        """
        if not self._layout.depths:
            return data
        splits: dict[str, Split] = {"train": data.train, "validation": data.validation}
        self._place.mkdir(parents=True, exist_ok=True)
        stop = stop or threading.Event()
        with _held(self._place / "lock", stop):
            for left_over in self._place.glob(f"{_BUILDING}*"):  # by a builder that was killed
                shutil.rmtree(left_over, ignore_errors=True)
            for name, split in splits.items():
                missing = [depth for depth in self._layout.depths if not self._has(name, depth)]
                if missing:
                    self._build(name, split, missing, pack, advance, stop)
        device = next(pack.backbone.parameters()).device
        # On a GPU that has room for them they are read where they are used.
        there = device.type == "cuda" and self._layout.bytes < torch.cuda.mem_get_info(device)[0] // 2
        where = device if there else torch.device("cpu")
        train, validation = (self._with_states(name, split, where) for name, split in splits.items())
        return replace(data, train=train, validation=validation)

    def _has(self, split: str, depth: Depth) -> bool:
        folder = self._place / f"{split}-{depth.key}"
        try:
            # Opening reads the header alone, and checks the length.
            return (folder / _WHOLE).is_file() and bool(_opened(folder, depth))
        except (OSError, SafetensorError):
            return False

    def _with_states(self, name: str, split: Split, where: torch.device) -> Split:
        states: dict[Depth, States] = {}
        for depth in self._layout.depths:
            folder = self._place / f"{name}-{depth.key}"
            states[depth] = tuple(state.to(where) for state in _opened(folder, depth))
        return replace(split, frozen=states)

    def _build(
        self,
        name: str,
        split: Split,
        depths: Sequence[Depth],
        pack: Pack,
        advance: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        beside = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=self._place))
        try:
            files = {
                depth: [
                    _Mapped(beside / f"{depth.key}-{index}", self._shape(split), self._layout.dtype)
                    for index in range(depth.tensors)
                ]
                for depth in depths
            }
            for rows, states, part in frozen_batches(pack, split, depths):
                if stop.is_set():
                    raise Stopped
                advance(f"{name}: {part:.0%}")
                for depth in depths:
                    for file, state in zip(files[depth], states[depth], strict=True):
                        file.tensor[rows] = state.to("cpu")
            for depth in depths:
                self._publish(name, depth, beside, files[depth])
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _shape(self, split: Split) -> tuple[int, int]:
        return len(split.input_ids), self._layout.hidden_size

    def _publish(self, name: str, depth: Depth, beside: Path, files: list[_Mapped]) -> None:
        """Let others see the states of a depth, now that they are whole."""
        whole = beside / f"whole-{depth.key}"
        whole.mkdir()
        for index, file in enumerate(files):
            file.close()
            file.path.rename(whole / f"{index}.safetensors")
        (whole / _WHOLE).write_text(json.dumps({"split": name, "depth": depth}), encoding="utf-8")
        place = self._place / f"{name}-{depth.key}"
        shutil.rmtree(place, ignore_errors=True)
        whole.rename(place)


@contextmanager
def _held(path: Path, stop: threading.Event) -> Iterator[None]:
    """Hold a lock, after waiting for it until ``stop`` is set."""
    lock = FileLock(path)
    while not lock.is_locked:
        with suppress(Timeout):
            lock.acquire(timeout=_WAIT_SECONDS)
        if stop.is_set() and not lock.is_locked:
            raise Stopped
    try:
        yield
    finally:
        lock.release()


def _opened(folder: Path, depth: Depth) -> States:
    """The states of a depth, memory-mapped."""
    return tuple(load_file(folder / f"{index}.safetensors")["states"] for index in range(depth.tensors))


def frozen_batches(
    pack: Pack, split: Split, depths: Sequence[Depth]
) -> Iterator[tuple[Tensor, dict[Depth, States], float]]:
    """The frozen states of a whole split, in the batches in which it is evaluated.

    Yields:
        the tokens of a batch, int64 ``[tokens]``, their states, and the share of batches that are done.
    """
    device = next(pack.backbone.parameters()).device
    lengths = split.lengths
    batches = evaluation_batches(lengths, EVALUATION_TOKENS)
    bare = replace(split, frozen={})
    for done, indices in enumerate(batches, start=1):
        batch = gather(bare, indices, device, (EMBEDDED,))
        assert isinstance(batch, FlatBatch)
        first = torch.repeat_interleave(split.offsets[indices], lengths[indices])
        rows = first + batch.sequences.positions
        yield rows, pack.frozen_states(batch, depths), done / len(batches)


class _Mapped:
    """A safetensors file of one tensor, ``states``, that is written in place, so that it need not fit memory.

    Its room is taken at once: a disk that is full says so here, where a write through the mapping would kill
    the process.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: str) -> None:
        self.path = path
        kind = DTYPES[dtype]
        size = shape[0] * shape[1] * kind.itemsize
        names = {"float32": "F32", "bfloat16": "BF16", "float64": "F64"}
        about = {"states": {"dtype": names[dtype], "shape": shape, "data_offsets": [0, size]}}
        header = json.dumps(about).encode()
        header += b" " * (-len(header) % 64)
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.flush()
            _take_room(file, size)
        mapped = torch.from_file(str(path), shared=True, size=8 + len(header) + size, dtype=torch.uint8)
        self.tensor = mapped[8 + len(header) :].view(kind).view(shape)

    def close(self) -> None:
        """Flush to the disk, so that what is renamed is whole."""
        del self.tensor
        with open(self.path, "rb+") as file:
            os.fsync(file.fileno())


def _take_room(file: BinaryIO, size: int) -> None:
    """Let a file grow by a size; OSError if the disk has no room for it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), file.tell(), size)
        return
    for start in range(0, size, _CHUNK_BYTES):
        file.write(bytes(min(_CHUNK_BYTES, size - start)))


def budget_bytes(given: int | None, folder: Path, layout: Layout) -> int:
    """How much may be kept: as given, or at most 8 GiB and half of what the disk has free without it.

    What others are building of the same is there already, so that all workers of a run find the same; what is
    kept of other data is not to be had.

    Args:
        folder: of all such caches.
    """
    if given is not None:
        return given
    kept = bytes_below(folder / layout.key)
    return min(DEFAULT_BYTES, (free_bytes(folder) + kept) // 2)
