"""The generated page about adapters is what the tables say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_about_adapters_is_up_to_date() -> None:
    script = [sys.executable, str(ROOT / "docs" / "adapter_tables.py"), "--check"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
