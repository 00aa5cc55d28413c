"""The main job on real images, through the installed script."""

import json
from pathlib import Path

import jsonschema
import pytest

from quant_explorer.analysis.results import Results, VariantResult
from quant_explorer.core.artifact import Artifact
from quant_explorer.core.measurement import Status
from quant_explorer.core.study import StudyFile
from quant_explorer.pipeline.plan.space import CONFIGURATIONS
from quant_explorer.report.render import load_results
from results_schema import SCHEMA_PATH
from tests.cli.invoking import EAGER, ONNX, QUICK, SMALL, Invoke, Place

pytestmark = pytest.mark.slow
NAMES = {"fp32_baseline@eager", *(f"{config}@onnxruntime" for config in CONFIGURATIONS)}


@pytest.fixture(scope="module")
def run(finished: Place) -> Path:
    return finished.folder / "runs" / "mnist5k-small_cnn-tiny"


@pytest.fixture(scope="module")
def results(run: Path) -> Results:
    return load_results(run / "report" / "full_results.json")


def is_ok(variant: VariantResult) -> bool:
    """Half precision may be impossible here; nothing else may be anything but sound."""
    if variant.status is Status.UNSUPPORTED:
        assert variant.reason
        return False
    assert variant.status is Status.OK, variant.reason
    return True


def snapshot(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """When every file was written, and what is in it; but for the report, the log and the lock."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("log.txt", "run.json", ".lock") and "report" not in path.parts
    }


def test_every_configuration_has_all_its_figures(results: Results) -> None:
    assert {variant.name for variant in results.variants} == NAMES
    assert {variant.config for variant in results.variants if not is_ok(variant)} <= {"bf16", "fp16"}
    for variant in filter(is_ok, results.variants):
        assert variant.size.bytes
        assert variant.accuracy
        assert variant.accuracy.images == 100
        assert variant.cold_start_s
        assert variant.memory.peak_bytes
        assert set(variant.memory.peak_bytes) == {"1", "2"}
        assert all(variant.latency[size].rounds >= 2 for size in ("1", "2"))
        assert variant.frontier.on_frontier is not None
    assert any(variant.frontier.on_frontier for variant in results.variants)


def test_what_is_named_int8_ran_in_int8_and_is_small(results: Results) -> None:
    baseline, *others = results.variants
    found = {variant.config: variant for variant in others}
    assert baseline.name == "fp32_baseline@eager"
    assert baseline.executed.int8_mac_fraction == 0.0
    for config in ("static_int8_per_tensor", "static_int8_per_channel", "qat_int8"):
        assert found[config].executed.int8_mac_fraction == 1.0
        assert (found[config].size.ratio or 1.0) < 0.5
    assert 0 < (found["dynamic_int8"].executed.int8_mac_fraction or 0) < 0.5
    for config in ("fp32_baseline", "fp32_finetune"):
        assert found[config].executed.int8_mac_fraction == 0.0
        # Names inside an archive must not decide a winner.
        assert found[config].size.bytes == found["fp32_baseline"].size.bytes


def test_the_report_is_valid_and_complete(run: Path) -> None:
    document = json.loads((run / "report" / "full_results.json").read_bytes())
    jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_bytes())).validate(document)
    table = (run / "report" / "pareto.md").read_text()
    assert all(config in table for config in CONFIGURATIONS)
    assert (run / "report" / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_the_run_folder_holds_what_was_built_and_how(run: Path, results: Results) -> None:
    assert json.loads((run / "run.json").read_bytes())["settings"]["train_subset"] == 200
    for variant in filter(is_ok, results.variants):
        artifact = Artifact.load(run / "artifacts" / variant.digest)
        artifact.verify()
        assert sum(file.bytes for file in artifact.files) == variant.size.bytes
    assert not list(run.rglob(".building-*"))
    assert not list(run.rglob("*.checkpoint"))


def test_a_second_run_redoes_nothing(copied: Place) -> None:
    run = copied.folder / "run"
    before = snapshot(run)
    done = copied.call("pipeline", *ONNX, "--run-dir", run, "--all")
    assert done.returncode == 0, done.stderr
    assert snapshot(run) == before
    # Not one bar but that of walking through the variants.
    assert "score" not in done.stderr
    assert "time batch" not in done.stderr
    assert "static_int8_per_channel" in done.stdout


def test_report_renders_the_recorded_study_again(copied: Place, invoke: Invoke) -> None:
    run = copied.folder / "run"
    before = snapshot(run)
    report = (run / "report" / "full_results.json").read_bytes()
    for path in (run / "report").iterdir():
        path.unlink()
    code, printed = invoke("report", "--run-dir", run, "--json")
    assert code == 0
    assert snapshot(run) == before
    assert (run / "report" / "full_results.json").read_bytes() == report
    assert printed.encode() == report
    assert {path.name for path in (run / "report").iterdir()} == {
        "index.html",
        "full_results.json",
        "pareto.md",
        "pareto.png",
    }


def test_bench_and_evaluate_take_one_configuration_of_the_same_run(copied: Place, invoke: Invoke) -> None:
    run = copied.folder / "run"
    before = snapshot(run)
    for command in ("bench", "evaluate"):
        code, printed = invoke(
            command, *ONNX, "--config", "static_int8_per_channel", "--run-dir", run, "--json", "-q"
        )
        assert code == 0
        assert {variant["name"] for variant in json.loads(printed)["variants"]} == NAMES
    assert snapshot(run) == before


def test_quantize_lists_the_artifacts(copied: Place, invoke: Invoke) -> None:
    run = copied.folder / "run"
    code, printed = invoke("quantize", *ONNX, "--config", "dynamic_int8", "--run-dir", run, "--json", "-q")
    assert code == 0
    rows = json.loads(printed)
    assert [row["name"] for row in rows] == ["fp32_baseline@eager", "dynamic_int8@onnxruntime"]
    assert all(Path(row["folder"], "manifest.json").is_file() for row in rows)
    assert all(row["size_bytes"] > 0 for row in rows)


def test_qat_finetune_comes_with_its_control(copied: Place, invoke: Invoke) -> None:
    run = copied.folder / "run"
    before = snapshot(run)
    code, printed = invoke("qat-finetune", *ONNX, "--run-dir", run, "--json", "-q")
    assert code == 0
    names = [row["name"] for row in json.loads(printed)]
    assert names == ["fp32_baseline@eager", "qat_int8@onnxruntime", "fp32_finetune@onnxruntime"]
    assert snapshot(run) == before


def test_train_prints_the_accuracy_of_the_search_split_only(copied: Place, invoke: Invoke) -> None:
    run = copied.folder / "run"
    before = snapshot(run)
    code, printed = invoke("train", "--run-dir", run, "--json", "-q")
    assert code == 0
    (row,) = json.loads(printed)
    assert row["train_images"] + row["search_images"] == 200
    assert 0 <= row["search_top1"] <= 1
    assert snapshot(run) == before


def test_other_settings_on_the_same_folder_are_refused_one_by_one(copied: Place, invoke: Invoke) -> None:
    run = copied.folder / "run"
    before = snapshot(run)
    code, printed = invoke("pipeline", *ONNX, "--run-dir", run, "--seed", "1", "--epochs", "2")
    assert code == 2
    assert "was made with --seed 0 (now 1), --epochs 1 (now 2)" in printed
    assert snapshot(run) == before


def test_a_changed_artifact_is_found_and_the_message_has_the_remedy(
    copied: Place, invoke: Invoke, results: Results
) -> None:
    run = copied.folder / "run"
    (changed,) = (variant for variant in results.variants if variant.config == "dynamic_int8")
    weights = run / "artifacts" / changed.digest / "model.onnx"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    code, printed = invoke("pipeline", *ONNX, "--config", "dynamic_int8", "--run-dir", run)
    assert code == 1
    assert "dynamic_int8@onnxruntime could not be built: " in printed
    assert "missing or changed since it was built; delete" in printed
    latest = StudyFile.load(run / "study.jsonl").measurements(results.environment.digest)
    assert latest[changed.digest].status is Status.BUILD_FAILED


USERS_OWN = """
from torch import nn

def make(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 16), nn.ReLU(), nn.Linear(16, num_classes))
"""


def test_a_users_own_model_with_weights_is_not_trained(invoke: Invoke, place: Place) -> None:
    import safetensors.torch
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 16), nn.ReLU(), nn.Linear(16, 10))
    (place.folder / "mine.py").write_text(USERS_OWN)
    safetensors.torch.save_file(model.state_dict(), place.folder / "mine.safetensors")
    own = ("--model", "mine.py:make", "--weights", "mine.safetensors")
    code, printed = invoke("evaluate", *EAGER, *own, "--config", "dynamic_int8", *SMALL, *QUICK)
    assert code == 0, printed
    assert "train" not in printed.replace("training images", "")
    run = place.folder / "runs" / "mnist5k-mine-make"
    assert not (run / "weights").exists()
    results = load_results(run / "report" / "full_results.json")
    assert {variant.name for variant in results.variants} == {"fp32_baseline@eager", "dynamic_int8@eager"}
    assert all(variant.accuracy for variant in results.variants)
    baseline, dynamic = results.variants
    assert baseline.executed.macs == {"fp32": 28 * 28 * 16 + 16 * 10}
    assert dynamic.executed.int8_mac_fraction == 1.0
