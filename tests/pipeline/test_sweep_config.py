from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from quant_explorer.core.errors import SettingsError
from quant_explorer.core.recipe import Recipe
from quant_explorer.core.sweep import SweepPlan
from quant_explorer.pipeline.settings import Protocol, Settings
from quant_explorer.pipeline.space import choose_runtimes, sweep_recipes
from quant_explorer.pipeline.sweep_config import SweepConfig, load_sweep_config
from quant_explorer.runtimes import RUNTIMES

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@dataclasses.dataclass(frozen=True)
class Sweep:
    """All that a configuration turns into."""

    settings: Settings
    protocol: Protocol
    plan: SweepPlan
    recipes: tuple[Recipe, ...]
    output_dir: Path


def understand(config: SweepConfig) -> Sweep:
    plan = config.plan([config.seed])
    return Sweep(
        config.settings(config.seed),
        config.protocol(),
        # What is merely noted down does not count as acting.
        dataclasses.replace(plan, configuration=()),
        sweep_recipes(
            plan.cells,
            choose_runtimes(config.runtimes, RUNTIMES),
            config.settings(config.seed),
            config.protocol(),
            importance=config.importance,
            round_to=config.round_to,
            fine_tune=config.fine_tune,
        ),
        config.output_dir,
    )


# Each key with a value, and where it has to arrive.
ACTS: dict[str, tuple[object, Callable[[Sweep], object], object]] = {
    "seed": (3, lambda sweep: sweep.settings.seed, 3),
    "dataloader_seed": (7, lambda sweep: sweep.settings.batch_seed, 7),
    "dataset": ("mnist5k", lambda sweep: sweep.settings.data, "mnist5k"),
    "data_dir": ("elsewhere", lambda sweep: sweep.settings.data_dir, Path("elsewhere")),
    "model": (
        "small_cnn",
        lambda sweep: (sweep.settings.model, sweep.plan.model),
        ("small_cnn", "small_cnn"),
    ),
    "train_subset": (100, lambda sweep: sweep.settings.train_subset, 100),
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
    "runtimes": (["openvino"], lambda sweep: {one.runtime for one in sweep.recipes}, {"eager", "openvino"}),
    "calibration_batches": (2, lambda sweep: sweep.settings.calibration_images, 64),
    "quantization_backend": ("fbgemm", lambda sweep: sweep.recipes[0].options, (("engine", "fbgemm"),)),
    "benchmark_repeats": (4, lambda sweep: sweep.protocol.rounds, 4),
    "benchmark_warmup": (0, lambda sweep: sweep.protocol.warmup_calls, 0),
    "memory_budgets_mb": (
        [1, 2.5],
        lambda sweep: [one.memory_bytes for one in sweep.plan.budgets],
        [1e6, 2.5e6],
    ),
    "active_memory_budget_mb": (4, lambda sweep: sweep.plan.budgets[0].active_memory_bytes, 4e6),
    "latency_budget_ms": (0.5, lambda sweep: sweep.plan.budgets[0].latency_s, 0.5e-3),
    "max_accuracy_drop_pp": (0, lambda sweep: sweep.plan.budgets[0].accuracy_drop_pp, 0),
    "power_watts": (15, lambda sweep: sweep.plan.power_watts, 15),
    "cpu_frequency_scale": (0.5, lambda sweep: sweep.plan.frequency_scale, 0.5),
    "memory_bandwidth_gbps": (20, lambda sweep: sweep.plan.gb_per_s, 20),
    "peak_compute_gmacs": (90.0, lambda sweep: sweep.plan.gmacs_per_s, 90.0),
    "pareto_use_ci": (True, lambda sweep: sweep.plan.budgets[0].use_ci, True),
    "output_dir": ("there", lambda sweep: sweep.output_dir, Path("there")),
}
# The only key with a single allowed value: it acts by refusing the others (below).
REFUSES_OTHERS = {"device"}


def parameters(sweep: Sweep, technique: str, name: str) -> set[object]:
    steps = [step for one in sweep.recipes for step in one.steps if step.technique == technique]
    return {dict(step.parameters).get(name) for step in steps}


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


def test_every_key_is_seen_to_act() -> None:
    assert {*ACTS, *REFUSES_OTHERS} == {*SweepConfig.model_fields}


@pytest.mark.parametrize("key", ACTS)
def test_a_key_acts(tmp_path: Path, key: str) -> None:
    value, look, expected = ACTS[key]
    found = understand(load_sweep_config(write(tmp_path, yaml.safe_dump({key: value}))))
    assert look(found) == expected
    assert look(understand(SweepConfig())) != expected


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_that_come_along_are_valid(path: Path) -> None:
    assert understand(load_sweep_config(path)).recipes[0].name == "fp32_baseline@eager"


def test_the_default_has_the_grid_that_the_documents_name() -> None:
    config = load_sweep_config(next(path for path in CONFIGS if path.stem == "default"))
    assert (config.dataset, config.model) == ("fashion-mnist", "edge_cnn")
    assert list(config.pruning_levels) == [0, 0.25, 0.5, 0.7]
    assert list(config.precisions) == ["fp32", "fp16", "int8"]
    assert config.calibration_batches == 8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("epoch: 3", "line 1: unknown key 'epoch'. Did you mean 'epochs'?"),
        ("seed: 1\nprecision: [int8]", "line 2: unknown key 'precision'. Did you mean 'precisions'?"),
        ("\n\nepochs: 0", "line 3: epochs: 0 is not allowed: Input should be greater than or equal to 1"),
        ("epochs: true", "line 1: epochs: True is not allowed"),
        ("epochs: '3'", "line 1: epochs: '3' is not allowed"),
        ("epochs: 2.5", "line 1: epochs: 2.5 is not allowed"),
        ("pruning_levels: [0, 1]", "line 1: pruning_levels: 1 is not allowed: Input should be less than 1"),
        ("pruning_levels: []", "line 1: pruning_levels: [] is not allowed"),
        ("pruning_levels: [0.5, 0.5]", "a value is there twice"),
        ("precisions: [int4]", "line 1: precisions: 'int4' is not allowed"),
        ("runtimes: [onnx]", "unknown runtime 'onnx'. Did you mean 'onnxruntime'?"),
        ("latency_budget_ms: -1", "latency_budget_ms: -1 is not allowed: Input should be greater than 0"),
        ("latency_budget_ms: .inf", "latency_budget_ms: inf is not allowed"),
        ("cpu_frequency_scale: 1.5", "cpu_frequency_scale: 1.5 is not allowed"),
        ("distill: 1", "distill: 1 is not allowed"),
        ("learning_rate: 5e-2", "'5e-2' is not allowed: YAML reads it as text; write a number with a dot"),
        ("on: 1", "unknown key 'True'"),
        ("device: cuda", "device: 'cuda' is not allowed: Input should be 'cpu'"),
        ("seed: 1\nseed: 2", "line 2: seed is there already, in line 1"),
        ("- a list", "expected keys with values"),
        ("", "expected keys with values"),
        ("seed: [1", "not readable as YAML"),
        ("seed: !!python/object/apply:os.getcwd []", "not readable as YAML"),
        ("seed: -1\nepochs: 0", "line 2: epochs: 0"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError, match=re.escape(told)) as caught:
        load_sweep_config(path)
    assert str(path) in str(caught.value)


def test_one_of_a_list_needs_no_brackets(tmp_path: Path) -> None:
    config = load_sweep_config(write(tmp_path, "runtimes: all\nmemory_budgets_mb: 10\nprecisions: int8"))
    assert (config.runtimes, config.memory_budgets_mb, config.precisions) == (("all",), (10,), ("int8",))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read"):
        load_sweep_config(tmp_path / "none.yaml")


def test_without_memory_budgets_there_is_one_set_of_budgets() -> None:
    (budgets,) = SweepConfig(latency_budget_ms=2.0).plan([0]).budgets
    assert (budgets.memory_bytes, budgets.latency_s) == (None, 2e-3)
