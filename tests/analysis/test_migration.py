from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.analysis.results import RunInfo
from quant_explorer.core.errors import SettingsError
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.report.render import encode_results, load_results
from tests.analysis.replayed import ORDINARY, ranked

# As schema 1 was written: absent subsets and weights were 0 and "".
EARLIER = {
    "data": "cifar10",
    "data_digest": "388ed47a04010b2e",
    "model": "resnet18",
    "weights": "w.pt",
    "seed": 3,
    "threads": 2,
    "epochs": 4,
    "qat_epochs": 6,
    "train_subset": 0,
    "test_subset": 50,
    "batch_sizes": [1, 4],
    "rounds": 12,
    "precision": 0.05,
    "time_limit_s": 60.0,
    "engine": "fbgemm",
    "version": "0.1.0",
}
UNRECORDED = (
    *("data_dir", "weights_key", "label_smoothing", "dataloader_seed", "batch_size", "learning_rate"),
    *("calibration_images", "target", "augment", "flip", "qat_learning_rate", "float_layers"),
    *("image_size", "resize", "crop", "interpolation", "antialias", "channels", "mean", "std"),
    *("value_range", "classes", "class_order", "skip_unreadable"),
    *("answer_timeout_s", "warmup_calls", "most_rounds"),
)


def write_earlier(folder: Path, **changes: object) -> Path:
    document = json.loads(encode_results(ranked(folder, ORDINARY)))
    for results in (document, *document["others"]):
        results |= {"schema_version": 1, "run": EARLIER | changes}
    document["others"] = [{**document, "others": []}]
    path = folder / "full_results.json"
    path.write_text(json.dumps(document))
    return path


def test_a_document_of_schema_1_says_what_it_knew_and_what_it_did_not(tmp_path: Path) -> None:
    found = load_results(write_earlier(tmp_path))
    expected = RunInfo(
        Settings(
            data="cifar10",
            model="resnet18",
            weights=Path("w.pt"),
            seed=3,
            epochs=4,
            fine_tune_epochs=6,
            test_subset=50,
            engine="fbgemm",
        ),
        MeasurementProtocol(threads=2, batch_sizes=(1, 4), rounds=12, precision=0.05, time_limit_s=60.0),
        data_digest="388ed47a04010b2e",
        version="0.1.0",
        unrecorded=UNRECORDED,
    )
    assert (found.run, found.schema_version) == (expected, 2)
    assert [(other.run, other.schema_version) for other in found.others] == [(expected, 2)]


def test_its_figures_are_what_they_were(tmp_path: Path) -> None:
    present = ranked(tmp_path, ORDINARY)
    (tmp_path / "earlier").mkdir()
    found = load_results(write_earlier(tmp_path / "earlier"))
    assert replace(found, run=present.run, others=()) == present


def test_a_run_that_cannot_have_been_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--rounds 0 is out of range"):
        load_results(write_earlier(tmp_path, rounds=0))
