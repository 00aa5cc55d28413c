"""The lines of docs/api.md, run as they stand, one block after the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.docs.documents import ROOT, blocks, code_words

API = ROOT / "docs" / "api.md"


def test_the_examples_run_and_the_table_has_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/cifar10-small_cnn").symlink_to(ROOT / "results" / "cifar10-jpeg")
    names: dict[str, object] = {}
    logits: list[torch.Tensor] = []
    for block in blocks(API):
        exec(block.content, names)
        made = names.pop("logits", None)
        logits += [made] if isinstance(made, torch.Tensor) else []
    assert [(tuple(logit.shape), logit.dtype) for logit in logits] == [((8, 10), torch.float32)] * 3
    assert set(json.loads((tmp_path / "int8.json").read_text())) <= set(code_words(API))
