"""Adapters for frozen Hugging Face transformers: build, insert, remove, switch, save, load.

Names below are imported when first used: `import adapters` alone costs nothing. Some functions share the
name of a file and are imported from theirs: `from adapters.insert import insert`,
`from adapters.initialize import initialize`, `from adapters.merge import merge`,
`from adapters.compose import fuse, stack`, `from adapters.average import average`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Read as text by those who must tell this package from another one of its name without importing it.
__distribution__ = "adapter-sweeper"

if TYPE_CHECKING:
    from adapters.adapter import Adapter, build
    from adapters.architectures import architecture_of, hidden_size, layer_count, sites
    from adapters.bottleneck import Bottleneck
    from adapters.config import AdapterConfig, Part
    from adapters.count import adapter_parameters, module_parameters
    from adapters.errors import AdapterError
    from adapters.files import digest, save
    from adapters.insert import activate, active, attach, get, names, remove, route
    from adapters.merge import merged, unmerge
    from adapters.reading import load, load_into

_HOMES = {
    "Adapter": "adapter",
    "AdapterConfig": "config",
    "AdapterError": "errors",
    "Bottleneck": "bottleneck",
    "Part": "config",
    "activate": "insert",
    "active": "insert",
    "adapter_parameters": "count",
    "architecture_of": "architectures",
    "attach": "insert",
    "build": "adapter",
    "digest": "files",
    "get": "insert",
    "hidden_size": "architectures",
    "layer_count": "architectures",
    "load": "reading",
    "load_into": "reading",
    "merged": "merge",
    "module_parameters": "count",
    "names": "insert",
    "remove": "insert",
    "route": "insert",
    "save": "files",
    "sites": "architectures",
    "unmerge": "merge",
}

__all__ = [
    "Adapter",
    "AdapterConfig",
    "AdapterError",
    "Bottleneck",
    "Part",
    "activate",
    "active",
    "adapter_parameters",
    "architecture_of",
    "attach",
    "build",
    "digest",
    "get",
    "hidden_size",
    "layer_count",
    "load",
    "load_into",
    "merged",
    "module_parameters",
    "names",
    "remove",
    "route",
    "save",
    "sites",
    "unmerge",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"adapters.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
