"""What one hook keeps for another in a forward pass, by thread: several may run a model at once."""

from __future__ import annotations

import threading
from typing import Any


class Kept(threading.local):
    """Values by number; a copy of the model that the hooks are on keeps none yet."""

    def __init__(self) -> None:
        self.values: dict[int, Any] = {}

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return Kept, ()
