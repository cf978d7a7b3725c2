"""`load` and `load_into`: an adapter from a file, or from the folder of a study or of another library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from adapters.adapter import Adapter
from adapters.files import load_file
from adapters.insert import attach
from adapters.interop.folders import load_folder


def load(path: str | Path, backbone: Any = None) -> Adapter:
    """Read one adapter, on the CPU, in the dtype in which it was saved, in eval mode.

    Args:
        path: a file that `save` wrote; or a folder that `sweeper export`, AdapterHub's `adapters` or PEFT
            wrote.
        backbone: the model that an adapter of PEFT is for, or its configuration: PEFT does not say.

    Raises:
        AdapterError: the file is missing, damaged, of another format, or its tensors are not those that its
            configuration asks for; or a folder holds what this library has no equal of. The message names
            the file and says which.
    """
    path = Path(path)
    return load_folder(path, backbone) if path.is_dir() else load_file(path)


def load_into(model: nn.Module, path: str | Path, name: str = "default") -> Adapter:
    """Read one adapter and attach it to a model as the active one.

    Args:
        model: also the backbone that `load` may need.
        path: as for `load`.
        name: as for `insert.attach`.

    Raises:
        AdapterError: see `load` and `insert.attach`.
    """
    return attach(model, load(path, model), name)
