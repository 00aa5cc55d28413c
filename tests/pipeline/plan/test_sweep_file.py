from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from quant_explorer.core.errors import SettingsError
from quant_explorer.core.recipe import Recipe
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings, sweep_settings
from quant_explorer.core.settings.plan import SweepPlan
from quant_explorer.pipeline.plan.space import choose_runtimes, sweep_recipes
from quant_explorer.pipeline.plan.sweep_file import SweepConfig, read_sweep_file
from quant_explorer.runtimes import RUNTIMES

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


@dataclasses.dataclass(frozen=True)
class Sweep:
    """All that a configuration turns into."""

    settings: Settings
    protocol: MeasurementProtocol
    plan: SweepPlan
    recipes: tuple[Recipe, ...]
    run_dir: Path


def understand(config: SweepConfig) -> Sweep:
    settings = config.settings_of_seed(config.seeds[0])
    return Sweep(
        settings,
        config.protocol,
        # What is merely noted down does not count as acting.
        dataclasses.replace(config.plan, configuration=()),
        sweep_recipes(
            config.plan.cells,
            choose_runtimes(config.grid.runtimes, RUNTIMES),
            settings,
            config.protocol,
            importance=config.grid.importance,
            round_to=config.grid.round_to,
            fine_tune=config.fine_tune,
        ),
        config.run_dir,
    )


def load(path: Path) -> SweepConfig:
    return SweepConfig.of(read_sweep_file(path))


# Each key, earlier ones too, with a value, and where it has to arrive.
ACTS: dict[str, tuple[object, Callable[[Sweep], object], object]] = {
    "seeds": ([4, 5], lambda sweep: (sweep.plan.seeds, sweep.settings.seed), ((4, 5), 4)),
    "seed": (3, lambda sweep: sweep.settings.seed, 3),
    "dataloader_seed": (7, lambda sweep: sweep.settings.batch_seed, 7),
    "data": ("mnist5k", lambda sweep: sweep.settings.data, "mnist5k"),
    "dataset": ("mnist5k", lambda sweep: sweep.settings.data, "mnist5k"),
    "data_dir": ("elsewhere", lambda sweep: sweep.settings.data_dir, Path("elsewhere")),
    "model": (
        "small_cnn",
        lambda sweep: (sweep.settings.model, sweep.plan.model),
        ("small_cnn", "small_cnn"),
    ),
    "weights_key": ("ema", lambda sweep: sweep.settings.weights_key, "ema"),
    "image_size": (299, lambda sweep: sweep.settings.preprocessing.image_size, (299, 299)),
    "resize": ("240x320", lambda sweep: sweep.settings.preprocessing.resize, (240, 320)),
    "crop": (0.9, lambda sweep: sweep.settings.preprocessing.crop, 0.9),
    "interpolation": ("bicubic", lambda sweep: sweep.settings.preprocessing.interpolation, "bicubic"),
    "antialias": (False, lambda sweep: sweep.settings.preprocessing.antialias, False),
    "channels": (1, lambda sweep: sweep.settings.preprocessing.channels, 1),
    "mean": ([0.5, 0.25, 0.5], lambda sweep: sweep.settings.preprocessing.mean, (0.5, 0.25, 0.5)),
    "std": (0.5, lambda sweep: sweep.settings.preprocessing.std, (0.5,)),
    "value_range": (255, lambda sweep: sweep.settings.preprocessing.value_range, 255),
    "classes": ("names.txt", lambda sweep: sweep.settings.classes, Path("names.txt")),
    "class_order": ("number", lambda sweep: sweep.settings.class_order, "number"),
    "skip_unreadable": (True, lambda sweep: sweep.settings.skip_unreadable, True),
    "augment": ("none", lambda sweep: sweep.settings.augment, "none"),
    "flip": (False, lambda sweep: sweep.settings.flip, False),
    "qat_learning_rate": (0.5, lambda sweep: sweep.settings.qat_learning_rate, 0.5),
    "float_layers": (
        ["head", "stem.*"],
        lambda sweep: parameters(sweep, "static_int8", "float_layers"),
        {"head,stem.*"},
    ),
    "weights": ("w.pt", lambda sweep: sweep.settings.weights, Path("w.pt")),
    "label_smoothing": (0, lambda sweep: sweep.settings.label_smoothing, 0),
    "target": ("portable", lambda sweep: sweep.settings.target, "portable"),
    "train_subset": (100, lambda sweep: sweep.settings.train_subset, 100),
    "test_subset": (50, lambda sweep: sweep.settings.test_subset, 50),
    "val_subset": (50, lambda sweep: sweep.settings.test_subset, 50),
    "batch_size": (128, lambda sweep: sweep.settings.batch_size, 128),
    "epochs": (2, lambda sweep: sweep.settings.epochs, 2),
    "learning_rate": (0.05, lambda sweep: sweep.settings.learning_rate, 0.05),
    "fine_tune_epochs": (4, lambda sweep: parameters(sweep, "fine_tune", "epochs"), {4}),
    "fine_tune_learning_rate": (0.5, lambda sweep: parameters(sweep, "fine_tune", "learning_rate"), {0.5}),
    "distill": (True, lambda sweep: parameters(sweep, "fine_tune", "distill"), {True}),
    "round_to": (8, lambda sweep: parameters(sweep, "prune", "round_to"), {8}),
    "importance": ("taylor", lambda sweep: parameters(sweep, "prune", "importance"), {"taylor"}),
    "pruning_levels": ([0.1], lambda sweep: [cell.pruning for cell in sweep.plan.cells], [0.0] + 3 * [0.1]),
    "precisions": (
        ["bf16"],
        lambda sweep: [cell.config for cell in sweep.plan.cells],
        ["fp32_baseline", "bf16", "pruned25_bf16", "pruned50_bf16", "pruned70_bf16"],
    ),
    "runtimes": (
        ["openvino"],
        lambda sweep: {recipe.runtime for recipe in sweep.recipes},
        {"eager", "openvino"},
    ),
    "calibration_images": (64, lambda sweep: sweep.settings.calibration_images, 64),
    "calibration_batches": (2, lambda sweep: sweep.settings.calibration_images, 64),
    "engine": ("fbgemm", lambda sweep: sweep.recipes[0].options, (("engine", "fbgemm"),)),
    "quantization_backend": ("fbgemm", lambda sweep: sweep.recipes[0].options, (("engine", "fbgemm"),)),
    "rounds": (4, lambda sweep: (sweep.protocol.rounds, sweep.protocol.most_rounds), (4, None)),
    "most_rounds": (40, lambda sweep: sweep.protocol.most_rounds, 40),
    "benchmark_repeats": (4, lambda sweep: (sweep.protocol.rounds, sweep.protocol.most_rounds), (4, 4)),
    "threads": (2, lambda sweep: sweep.protocol.threads, 2),
    "batch_sizes": ([8, 1], lambda sweep: sweep.protocol.batch_sizes, (1, 8)),
    "precision": (0.5, lambda sweep: sweep.protocol.precision, 0.5),
    "time_limit_s": (7, lambda sweep: sweep.protocol.time_limit_s, 7),
    "answer_timeout_s": (7, lambda sweep: sweep.protocol.answer_timeout_s, 7),
    "warmup_calls": (0, lambda sweep: sweep.protocol.warmup_calls, 0),
    "benchmark_warmup": (0, lambda sweep: sweep.protocol.warmup_calls, 0),
    "memory_budgets_mb": (
        [1, 2.5],
        lambda sweep: [(budget.size_bytes, budget.memory_bytes) for budget in sweep.plan.budgets],
        [(1e6, 1e6), (2.5e6, 2.5e6)],
    ),
    "active_memory_budget_mb": (4, lambda sweep: sweep.plan.budgets[0].memory_bytes, 4e6),
    "latency_budget_ms": (0.5, lambda sweep: sweep.plan.budgets[0].latency_s, 0.5e-3),
    "max_accuracy_drop_pp": (0, lambda sweep: sweep.plan.budgets[0].accuracy_drop_pp, 0),
    "power_watts": (15, lambda sweep: sweep.plan.power_watts, 15),
    "cpu_frequency_scale": (0.5, lambda sweep: sweep.plan.frequency_scale, 0.5),
    "memory_bandwidth_gbps": (20, lambda sweep: sweep.plan.gb_per_s, 20),
    "peak_compute_gmacs": (90.0, lambda sweep: sweep.plan.gmacs_per_s, 90.0),
    "pareto_use_ci": (False, lambda sweep: sweep.plan.budgets[0].use_ci, False),
    "margin_pp": (1, lambda sweep: sweep.plan.rules.margin_pp, 1.0),
    "epsilon_latency": (0.1, lambda sweep: sweep.plan.rules.epsilon_latency, 0.1),
    "epsilon_size": (0.1, lambda sweep: sweep.plan.rules.epsilon_size, 0.1),
    "run_dir": ("there", lambda sweep: sweep.run_dir, Path("there")),
    "output_dir": ("there", lambda sweep: sweep.run_dir, Path("there")),
}
# The only key with a single allowed value: it acts by refusing the others (below).
REFUSES_OTHERS = {"device"}


def parameters(sweep: Sweep, technique: str, name: str) -> set[object]:
    steps = [step for recipe in sweep.recipes for step in recipe.steps if step.technique == technique]
    return {dict(step.parameters).get(name) for step in steps}


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


def test_every_key_is_seen_to_act() -> None:
    assert {*ACTS, *REFUSES_OTHERS} == {
        key for declared in sweep_settings().values() for key in declared.keys
    }


@pytest.mark.parametrize("key", ACTS)
def test_a_key_acts(tmp_path: Path, key: str) -> None:
    value, look, expected = ACTS[key]
    found = understand(load(write(tmp_path, yaml.safe_dump({key: value}))))
    assert look(found) == expected
    assert look(understand(SweepConfig.of({}))) != expected


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_that_come_along_are_valid(path: Path) -> None:
    assert understand(load(path)).recipes[0].name == "fp32_baseline@eager"


def test_the_default_has_the_grid_that_the_documents_name() -> None:
    config = load(next(path for path in CONFIGS if path.stem == "default"))
    assert (config.settings.data, config.settings.model) == ("fashion-mnist", "edge_cnn")
    assert list(config.grid.pruning_levels) == [0, 0.25, 0.5, 0.7]
    assert list(config.grid.precisions) == ["fp32", "fp16", "int8"]
    assert config.settings.calibration_images == 8 * 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "line 1: unknown key 'epoch'. Did you mean 'epochs'?"),
        ("seed: 1\nprecisons: [int8]", "line 2: unknown key 'precisons'. Did you mean 'precisions'?"),
        (
            "precision: int8",
            "line 1: precision: 'int8' is not allowed. Allowed: number, above 0 and below 1.",
        ),
        ("\n\nepochs: 0", "line 3: epochs: 0 is not allowed. Allowed: whole number, at least 1."),
        ("epochs: true", "line 1: epochs: True is not allowed"),
        ("epochs: '3'", "line 1: epochs: '3' is not allowed"),
        ("epochs: 2.5", "line 1: epochs: 2.5 is not allowed"),
        (
            "pruning_levels: [0, 1]",
            "line 1: pruning_levels: 1 is not allowed. Allowed: list of numbers, 0 up to but not 1.",
        ),
        ("pruning_levels: []", "line 1: pruning_levels: [] is not allowed"),
        ("pruning_levels: [0.5, 0.5]", "a value is there twice"),
        ("precisions: [int4]", "line 1: precisions: 'int4' is not allowed"),
        ("runtimes: [onnx]", "unknown runtime 'onnx'. Did you mean 'onnxruntime'?"),
        ("latency_budget_ms: -1", "latency_budget_ms: -1 is not allowed. Allowed: number, above 0."),
        ("latency_budget_ms: .inf", "latency_budget_ms: inf is not allowed"),
        ("cpu_frequency_scale: 1.5", "cpu_frequency_scale: 1.5 is not allowed"),
        ("distill: 1", "distill: 1 is not allowed"),
        ("learning_rate: 5e-2", "'5e-2' is not allowed. YAML reads it as text; write a number with a dot"),
        ("on: 1", "unknown key 'True'"),
        ("device: cuda", "device: 'cuda' is not allowed. Allowed: cpu."),
        ("seed: 1\nseed: 2", "line 2: seed is there already, in line 1"),
        ("dataset: mnist\ndata: mnist", "line 2: data: dataset is there already, in line 1"),
        ("rounds: 5\nbenchmark_repeats: 5", "line 2: benchmark_repeats: rounds is there already, in line 1"),
        ("calibration_batches: 0", "line 1: calibration_batches: 0 is not allowed."),
        ("benchmark_repeats: 1", "line 1: benchmark_repeats: 1 is not allowed."),
        (
            "batch_sizes: [8]",
            "line 1: batch_sizes: [8] is not allowed. Allowed: list of positive numbers, 1 among",
        ),
        ("- a list", "expected keys with values"),
        ("", "expected keys with values"),
        ("seed: [1", "not readable as YAML"),
        ("seed: !!python/object/apply:os.getcwd []", "not readable as YAML"),
        ("seed: -1\nepochs: 0", "line 2: epochs: 0"),
    ],
)
def test_what_is_wrong_is_reported_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError, match=re.escape(message)) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_one_of_a_list_needs_no_brackets(tmp_path: Path) -> None:
    config = load(write(tmp_path, "runtimes: all\nmemory_budgets_mb: 10\nprecisions: int8"))
    grid, budgets = config.grid, config.budgets
    assert (grid.runtimes, budgets.memory_budgets_mb, grid.precisions) == (("all",), (10,), ("int8",))


def test_settings_that_contradict_each_other_are_reported(tmp_path: Path) -> None:
    path = write(tmp_path, "rounds: 9\nmost_rounds: 8")
    with pytest.raises(
        SettingsError, match=r"--most-rounds 8 is out of range\. Allowed: at least --rounds 9\."
    ):
        load(path)


def test_every_setting_is_noted_down_as_it_was_understood(tmp_path: Path) -> None:
    noted = dict(load(write(tmp_path, "benchmark_repeats: 5\nfine_tune_epochs: 0")).plan.configuration)
    assert noted.keys() == sweep_settings().keys()
    assert (noted["rounds"], noted["most_rounds"], noted["fine_tune_epochs"]) == ("5", "5", "0")
    assert (noted["pruning_levels"], noted["distill"], noted["weights"]) == (
        "0.0, 0.25, 0.5, 0.7",
        "False",
        "",
    )


def test_a_file_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read"):
        load(tmp_path / "none.yaml")


def test_without_memory_budgets_there_is_one_set_of_budgets() -> None:
    (budgets,) = SweepConfig.of({"latency_budget_ms": 2.0}).plan.budgets
    assert (budgets.memory_bytes, budgets.latency_s) == (None, 2e-3)
