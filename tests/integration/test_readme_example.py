"""The README's example of the library, run in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from tests.unit.house.test_readme import ROOT, blocks, folder

__all__ = ["folder"]


def test_the_library_example_runs(folder: Path) -> None:
    [code] = blocks("python")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True)
    assert (folder / "reviews.safetensors").is_file()
