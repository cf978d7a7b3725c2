"""Imports of torch and transformers, which are most of what a process takes to begin."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import inside without looks for garbage: there is none, and they take a sixth of the time.

    Nor is it looked for later among what was made inside, all of which stays.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
