"""A thread that keeps MLflow's picture of a study up to date while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

EVERY_SECONDS = 5.0


class Showing:
    """Calls ``show`` every few seconds from a thread, and once more at the end. Use it as a context manager.

    MLflow may be down: the study goes on without it, and what is missing is shown by a later call.

    Args:
        show: draws what is not drawn yet; None draws nothing.
        interrupts: how many signals have come: at one more, the end does not wait for what is being drawn.
    """

    def __init__(
        self,
        show: Callable[[], object] | None,
        every_seconds: float = EVERY_SECONDS,
        interrupts: Callable[[], int] = lambda: 0,
    ) -> None:
        self._show = show
        self._interrupts = interrupts
        self._every_seconds = every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="showing", daemon=True)
        self.error: str | None = None
        """What the last call failed with; None if it went well."""

    def __enter__(self) -> Self:
        if self._show is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        before = self._interrupts()
        while self._thread.is_alive():
            self._thread.join(0.2)
            if self._interrupts() > before:
                self.error = "it was interrupted while it drew"
                return

    def _run(self) -> None:
        while not self._stop.is_set():
            self._once()
            self._stop.wait(self._every_seconds)
        self._once()

    def _once(self) -> None:
        if self._show is None:
            return
        try:
            self._show()
            self.error = None
        except Exception as error:  # a picture is never worth a study
            self.error = str(error) or type(error).__name__
