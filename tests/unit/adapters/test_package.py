"""The package itself: what it exports, that importing it does nothing, and how it is told from another."""

import subprocess
import sys
from pathlib import Path

import pytest

import adapters


def test_every_exported_name_is_there():
    assert set(adapters._HOMES) == set(adapters.__all__) == set(dir(adapters))
    for name in adapters.__all__:
        assert callable(getattr(adapters, name)), name
    with pytest.raises(AttributeError, match="no attribute 'adapter_for_nothing'"):
        _ = adapters.adapter_for_nothing


def test_importing_it_imports_nothing_heavy():
    code = "import sys, adapters; assert not {'torch', 'transformers', 'safetensors'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(adapters.__file__).parents[1])


def test_its_distribution_can_be_read_without_importing_it():
    text = Path(adapters.__file__).read_text()
    assert '__distribution__ = "adapter-sweeper"' in text.splitlines()
    assert adapters.__distribution__ == "adapter-sweeper"
