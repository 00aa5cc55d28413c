from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from quant_explorer.testing.replay import play
from tests.analysis.replayed import ORDINARY


def test_a_report_is_made_without_torch_and_without_a_runtime(tmp_path: Path) -> None:
    play(tmp_path / "study.jsonl", ORDINARY)
    program = (
        "import sys; from quant_explorer.cli import app, run_command; "
        f"code = run_command(app, ('report', '--run-dir', {str(tmp_path)!r})); "
        "print('imported:', *sorted({'torch', 'onnxruntime', 'openvino'} & set(sys.modules)), code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported: 0"
    assert (tmp_path / "report" / "index.html").is_file()
