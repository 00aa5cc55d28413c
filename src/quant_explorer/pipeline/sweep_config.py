"""The YAML file of a sweep: every key checked, every mistake named with its line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from quant_explorer.core.errors import SettingsError, explain
from quant_explorer.core.quantspec import Precision
from quant_explorer.core.recipe import Step
from quant_explorer.core.registry import unknown_name_message
from quant_explorer.core.sweep import Budgets, SweepPlan
from quant_explorer.pipeline.settings import Protocol, Settings
from quant_explorer.pipeline.space import ALL, sweep_cells
from quant_explorer.pipeline.subject import CALIBRATION_BATCH
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.techniques import create_step
from quant_explorer.techniques.prune import Importance

Count = Annotated[int, Field(ge=1, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Switch = Annotated[bool, Field(strict=True)]
Level = Annotated[float, Field(ge=0, lt=1, strict=True)]

_MB = 1e6


class SweepConfig(BaseModel):
    """Pruning levels x precisions x runtimes of one model, and the budgets that they are held against.

    Memory is in MB of 10^6 bytes, rates are in 10^9 a second. What is None is not limited, not
    overridden, or left to the tool to choose.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Seed = 0
    dataloader_seed: Seed | None = None
    dataset: str = "fashion-mnist"
    data_dir: Path = Path("data")
    model: str = "edge_cnn"
    train_subset: Count | None = None
    val_subset: Count | None = None
    batch_size: Count = 64
    epochs: Count = 5
    learning_rate: Positive = 0.2
    fine_tune_epochs: Annotated[int, Field(ge=0, strict=True)] = 1
    fine_tune_learning_rate: Positive = 0.02
    distill: Switch = False
    importance: Importance = "l1"
    round_to: Count = 1
    pruning_levels: Annotated[tuple[Level, ...], Field(min_length=1)] = (0.0, 0.25, 0.5, 0.7)
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)] = ("fp32", "fp16", "int8")
    runtimes: Annotated[tuple[str, ...], Field(min_length=1)] = (ALL,)
    calibration_batches: Count = 8
    quantization_backend: str = ""
    benchmark_repeats: Annotated[int, Field(ge=2, strict=True)] = 10
    benchmark_warmup: Annotated[int, Field(ge=0, strict=True)] = 3
    memory_budgets_mb: tuple[Positive, ...] = ()
    active_memory_budget_mb: Positive | None = None
    latency_budget_ms: Positive | None = None
    max_accuracy_drop_pp: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None
    power_watts: Positive | None = None
    cpu_frequency_scale: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0
    memory_bandwidth_gbps: Positive | None = None
    peak_compute_gmacs: Positive | None = None
    pareto_use_ci: Switch = False
    output_dir: Path = Path("runs/sweep")
    device: Literal["cpu"] = "cpu"

    @field_validator("pruning_levels", "precisions", "runtimes", "memory_budgets_mb", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: object) -> object:
        return (value,) if isinstance(value, (str, int, float)) else value

    @field_validator("pruning_levels", "precisions", "runtimes", "memory_budgets_mb")
    @classmethod
    def _once_each(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(values)) < len(values):
            raise ValueError("a value is there twice")
        return values

    @field_validator("runtimes")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        allowed = (*RUNTIMES, ALL)
        for name in names:
            if name not in allowed:
                raise ValueError(unknown_name_message("runtime", name, allowed))
        return names

    def settings(self, seed: int) -> Settings:
        """Return what decides the weights and artifacts of one seed; raises SettingsError."""
        return Settings(
            data=self.dataset,
            model=self.model,
            data_dir=self.data_dir,
            seed=seed,
            dataloader_seed=self.dataloader_seed,
            epochs=self.epochs,
            train_subset=self.train_subset,
            test_subset=self.val_subset,
            engine=self.quantization_backend,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            calibration_images=self.calibration_batches * CALIBRATION_BATCH,
        )

    def protocol(self) -> Protocol:
        """Return how the variants are measured."""
        rounds = self.benchmark_repeats
        return Protocol(rounds=rounds, most_rounds=rounds, warmup_calls=self.benchmark_warmup)

    @property
    def fine_tune(self) -> Step | None:
        """The step that a pruned model goes through, None for no epochs of it."""
        if not self.fine_tune_epochs:
            return None
        return create_step(
            "fine_tune",
            epochs=self.fine_tune_epochs,
            learning_rate=self.fine_tune_learning_rate,
            distill=self.distill,
        )

    def plan(self, seeds: Sequence[int]) -> SweepPlan:
        """Return what the outputs are derived with."""
        limits = Budgets(
            active_memory_bytes=_scaled(self.active_memory_budget_mb, _MB),
            latency_s=_scaled(self.latency_budget_ms, 1e-3),
            accuracy_drop_pp=self.max_accuracy_drop_pp,
            use_ci=self.pareto_use_ci,
        )
        return SweepPlan(
            model=self.model,
            seeds=tuple(seeds),
            cells=sweep_cells(self.pruning_levels, self.precisions),
            budgets=tuple(
                dataclasses.replace(limits, memory_bytes=_scaled(budget, _MB))
                for budget in self.memory_budgets_mb or (None,)
            ),
            power_watts=self.power_watts,
            frequency_scale=self.cpu_frequency_scale,
            gb_per_s=self.memory_bandwidth_gbps,
            gmacs_per_s=self.peak_compute_gmacs,
            configuration=tuple((name, _text(value)) for name, value in self),
        )


def load_sweep_config(path: Path) -> SweepConfig:
    """Read a configuration; raises SettingsError with file, line, key and what is allowed."""
    try:
        text = path.read_text()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror or explain(error)})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not readable as YAML ({' '.join(explain(error).split())})") from error
    if not isinstance(content, Mapping) or not isinstance(root, yaml.MappingNode):
        raise SettingsError(f"{path}: expected keys with values, as in configs/default.yaml")
    lines: dict[str, int] = {}
    for node, _ in root.value:
        key, line = str(node.value), node.start_mark.line + 1
        if key in lines:
            raise SettingsError(f"{path}, line {line}: {key} is there already, in line {lines[key]}")
        lines[key] = line
    try:
        return SweepConfig.model_validate({str(key): value for key, value in content.items()})
    except ValidationError as error:
        raise SettingsError(_explain(error, path, lines)) from error


def _explain(error: ValidationError, path: Path, lines: Mapping[str, int]) -> str:
    sentences = []
    for problem in error.errors():
        key = str(problem["loc"][0])
        # YAML reads `on` and `yes` as true.
        where = f"{path}, line {lines[key]}" if key in lines else str(path)
        if problem["type"] == "extra_forbidden":
            sentences.append(f"{where}: {unknown_name_message('key', key, SweepConfig.model_fields)}")
        else:
            message = problem["msg"].removeprefix("Value error, ").rstrip(".")
            if isinstance(problem["input"], str) and _is_number(problem["input"]):
                message = "YAML reads it as text; write a number with a dot, as 5.0e-2"
            sentences.append(f"{where}: {key}: {problem['input']!r} is not allowed: {message}.")
    return "\n".join(sentences)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value * unit


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
