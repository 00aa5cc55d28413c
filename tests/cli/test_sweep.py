from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import yaml

from quant_explorer.core.measurement import Predictions
from quant_explorer.core.study import StudyFile
from tests.cli.invoking import Invoke, Place, called_here

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("light_baseline")]

SWEEP = {
    "dataset": "mnist5k",
    "model": "edge_cnn",
    "train_subset": 200,
    "val_subset": 100,
    "epochs": 1,
    "fine_tune_epochs": 1,
    "pruning_levels": [0, 0.5],
    "precisions": ["fp32", "int8"],
    "runtimes": ["onnxruntime"],
    "calibration_batches": 2,
    "benchmark_repeats": 2,
    "memory_budgets_mb": [1e-6, 1000],
    "max_accuracy_drop_pp": 100,
    "power_watts": 10,
    "cpu_frequency_scale": 0.5,
    "output_dir": "out",
}
VARIANTS = [
    *("fp32_baseline@eager", "fp32_baseline@onnxruntime", "int8@onnxruntime"),
    *("pruned50_fp32@onnxruntime", "pruned50_int8@onnxruntime", "fp32_finetune@eager"),
]


def write(folder: Path, **changes: object) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, **changes}))
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def predictions(path: Path) -> dict[str, Predictions | None]:
    """What each variant predicted in the first environment of a study."""
    study = StudyFile.load(path)
    measurements = study.measurements(next(iter(study.environments)))
    return {measurement.variant.name: measurement.predictions for measurement in measurements.values()}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path, light_baseline: None) -> Place:
    """A finished sweep. Tests must not change it."""
    place = Place(tmp_path_factory.mktemp("swept"), shared_cache)
    with called_here(place) as call:
        code, printed = call("sweep", "--config", write(place.folder), "--seeds", "1")
    (place.folder / "printed.txt").write_text(printed)
    assert code == 0, printed
    return place


def test_every_pair_is_measured(swept: Place) -> None:
    rows = table(swept.folder / "out" / "sweep_results.csv")
    assert [f"{row['config']}@{row['runtime']}" for row in rows] == VARIANTS
    assert {(row["seed"], row["status"]) for row in rows} == {("1", "ok")}
    assert all(float(row["latency_p50_s"]) > 0 and float(row["roof_gmacs_per_s"]) > 0 for row in rows)
    assert all(
        float(row["energy_proxy_j"]) == pytest.approx(10 * float(row["latency_p50_s"])) for row in rows
    )
    assert {row["int8_mac_fraction"] for row in rows if "int8" in row["config"]} == {"1.0"}


def test_a_pruned_variant_is_smaller_in_every_way(swept: Place) -> None:
    rows = {row["config"]: row for row in table(swept.folder / "out" / "sweep_results.csv")}
    full, pruned = rows["fp32_baseline"], rows["pruned50_fp32"]
    assert int(full["parameters"]) == 5_130
    for figure in ("size_bytes", "parameters", "macs", "live_activation_bytes_estimate"):
        assert int(pruned[figure]) < int(full[figure])
    assert float(pruned["channels_removed"]) == 0.5


def test_models_are_trained_and_built_once(swept: Place) -> None:
    """A baseline, its control, and one pruned and fine-tuned model that its precisions share."""
    run = swept.folder / "out" / "seed-1"
    assert len(list((run / "weights").glob("baseline-*.safetensors"))) == 1
    assert len(list((run / "weights").glob("fine_tune-*.safetensors"))) == 2
    assert len(list((run / "artifacts").iterdir())) == len(VARIANTS)


def test_what_the_budgets_pick_is_printed_and_served_on_more_threads(swept: Place) -> None:
    summary = json.loads((swept.folder / "out" / "summary.json").read_text())
    tight, wide = summary["decisions"]
    assert tight["chosen"] is None
    assert tight["closest"] is not None
    assert wide["chosen"] in VARIANTS
    (deployment,) = summary["deployments"]
    cores = len(os.sched_getaffinity(0))
    doubling = {2**power for power in range(cores.bit_length())}
    assert {served["threads"] for served in deployment["throughput"]} == doubling
    printed = (swept.folder / "printed.txt").read_text()
    assert f"Ship {wide['chosen']}" in printed
    assert "comes closest: " in printed
    assert "Control: fine-tuning the unpruned model" in printed


def test_it_tells_what_it_takes_to_do_it_again(swept: Place) -> None:
    sentences = json.loads((swept.folder / "out" / "reproducibility.json").read_text())
    assert sentences["seeds"] == [1]
    assert sentences["command"][1:] == ["sweep", "--config", str(swept.folder / "sweep.yaml"), "--seeds", "1"]
    assert dict(sentences["configuration"])["pruning_levels"] == "0.0, 0.5"
    assert "torch" in sentences["packages"]


@pytest.mark.usefixtures("without_plots")
def test_the_same_seed_gives_the_same_and_another_seed_another(
    swept: Place, place: Place, invoke: Invoke
) -> None:
    # In a folder of its own, from the very first step; a part of the grid will do.
    part = write(place.folder, pruning_levels=[0.5], precisions=["int8"], memory_budgets_mb=[1e-6])
    code, printed = invoke("sweep", "--config", part, "--seeds", "1", "2")
    assert code == 0, printed
    runs = [swept.folder / "out" / "seed-1", *(place.folder / "out" / f"seed-{seed}" for seed in (1, 2))]
    first, again, other = (
        {path.name: path.read_bytes() for path in run.glob("weights/*.safetensors")} for run in runs
    )
    assert first == again
    assert not first.keys() & other.keys()
    artifacts = [{path.name for path in run.glob("artifacts/*")} for run in runs]
    assert artifacts[1] < artifacts[0]
    whole, repeated = (predictions(run / "study.jsonl") for run in runs[:2])
    assert len(repeated) == 4
    assert repeated == {name: whole[name] for name in repeated}
    over_seeds = table(place.folder / "out" / "summary_multi_seed.csv")
    assert {row["seeds"] for row in over_seeds} == {"2"}
    assert all(
        float(row["top1_low"]) <= float(row["top1_mean"]) <= float(row["top1_high"]) for row in over_seeds
    )
    # And once more, where everything is there: no record is added.
    before = [(run / "study.jsonl").read_bytes() for run in runs[1:]]
    assert invoke("sweep", "--config", part, "--seeds", "1", "2")[0] == 0
    assert [(run / "study.jsonl").read_bytes() for run in runs[1:]] == before


def test_outputs_are_derived_again_from_what_was_recorded(swept: Place, place: Place, invoke: Invoke) -> None:
    """On a machine that has the studies alone: no weights, no artifacts, no data."""
    study, described = Path("out") / "seed-1" / "study.jsonl", Path("out") / "reproducibility.json"
    (place.folder / study).parent.mkdir(parents=True)
    for file in (study, described):
        (place.folder / file).write_bytes((swept.folder / file).read_bytes())
    code, printed = invoke("sweep", "--config", write(place.folder), "--seeds", "1", "--report-only")
    assert code == 0
    assert "Ship " in printed
    first, again = (
        {path.name: path.read_bytes() for path in (origin.folder / "out").iterdir() if path.is_file()}
        for origin in (swept, place)
    )
    # With what describes the measurement, which was not done again.
    assert first == again
    assert {path.name for path in (place.folder / "out" / "seed-1").iterdir()} == {"report", "study.jsonl"}


@pytest.mark.parametrize(
    ("changes", "arguments", "sentences"),
    [
        ({}, (), "out/seed-0/study.jsonl: there is no study of seed 0 yet"),
        ({"seeds": [2, 3]}, (), "out/seed-2/study.jsonl"),
        ({"seeds": [2, 3]}, ("--seeds", "3,2"), "out/seed-3/study.jsonl"),
        ({"seeds": [2, 3]}, ("--seed", "4", "--run-dir", "there"), "there/seed-4/study.jsonl"),
    ],
)
def test_the_command_line_wins_over_the_file_and_a_seed_that_was_not_run_is_reported(
    place: Place, invoke: Invoke, changes: dict[str, object], arguments: tuple[str, ...], sentences: str
) -> None:
    config = write(place.folder, **changes)
    code, printed = invoke("sweep", "--config", config, "--report-only", *arguments)
    assert code == 2
    assert sentences in printed


@pytest.mark.parametrize(
    ("changes", "arguments", "sentences"),
    [
        ({"epoch": 1}, (), "unknown key 'epoch'. Did you mean 'epochs'?"),
        ({"dataset": "mnist5"}, (), "unknown data set 'mnist5'. Did you mean 'mnist5k'?"),
        ({"model": "edge_cn"}, (), "unknown model 'edge_cn'. Did you mean 'edge_cnn'?"),
        ({}, ("--runtime", "onnx"), "unknown runtime 'onnx'. Did you mean 'onnxruntime'?"),
        ({}, ("--seeds", "-1"), "-1"),
        ({}, ("--seeds", "one"), "--seeds one: not whole numbers. Allowed: for instance 1,2."),
        ({}, ("--seeds",), "--seeds"),
        ({}, ("--pruning-levels", "0,1"), "--pruning-levels 1 is out of range. Allowed: 0 up to but not 1."),
        ({}, ("--threads", "0"), "--threads 0 is out of range. Allowed: at least 1."),
        ({"quantization_backend": "fbgem"}, (), "unknown quantized engine 'fbgem'. Did you mean 'fbgemm'?"),
    ],
)
def test_wrong_input_is_one_sentence_before_anything_is_done(
    invoke: Invoke, place: Place, changes: dict[str, object], arguments: tuple[str, ...], sentences: str
) -> None:
    code, printed = invoke("sweep", "--config", write(place.folder, **changes), *arguments)
    assert code == 2
    assert sentences in printed
    assert "Traceback" not in printed
    assert not (place.folder / "out").exists()


def test_a_configuration_that_is_not_there_is_reported(invoke: Invoke, place: Place) -> None:
    code, printed = invoke("sweep", "--config", place.folder / "none.yaml")
    assert code == 2
    assert "none.yaml: cannot be read" in printed
