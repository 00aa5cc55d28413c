"""The page is made by the program that people are told to run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "settings_page.py", tmp_path / "page.md"], check=True)
    assert (tmp_path / "page.md").read_text() == (ROOT / "docs" / "settings.md").read_text(), "make settings"
