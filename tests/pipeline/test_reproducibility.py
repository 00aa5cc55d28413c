from __future__ import annotations

import subprocess
from pathlib import Path

from quant_explorer.core.settings.plan import SweepPlan
from quant_explorer.pipeline.reproducibility import describe_reproducibility, source_state
from tests.pipeline.toy_runs import ENVIRONMENT


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_the_source_has_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("")
    assert source_state(tmp_path) == (None, None)
    git(tmp_path, "init")
    # In a repository, but none of its files.
    assert source_state(tmp_path) == (None, None)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    assert source_state(tmp_path) == (git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "__init__.py").write_text("changed = True")
    assert source_state(tmp_path)[1] is True


def test_everything_that_decides_the_outcome_is_reported() -> None:
    plan = SweepPlan("toy", (3, 4), (), (), configuration=(("seed", "3"),))
    sentences = describe_reproducibility(["sweep"], ENVIRONMENT, ["d3", "d4"], plan)
    assert (sentences.seeds, sentences.data_digests) == ((3, 4), ("d3", "d4"))
    assert sentences.environment == ENVIRONMENT
    assert dict(sentences.configuration) == {"seed": "3"}
    assert {"numpy", "torch"} <= sentences.packages.keys()
