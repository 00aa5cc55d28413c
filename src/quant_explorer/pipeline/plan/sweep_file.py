"""The YAML file of a sweep: every key checked, every mistake named with its line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from quant_explorer.core.errors import SettingsError, UnknownNameError, explain
from quant_explorer.core.recipe import Step
from quant_explorer.core.registry import unknown_name_message
from quant_explorer.core.settings.declaration import NotAllowedError, Setting, Value, merge, values_of
from quant_explorer.core.settings.groups import (
    SWEEP_DEFAULTS,
    DecisionRules,
    MeasurementProtocol,
    Output,
    Settings,
    SweepBudgets,
    SweepGrid,
    sweep_settings,
)
from quant_explorer.core.settings.plan import Budgets, SweepPlan
from quant_explorer.pipeline.plan.space import choose_runtimes, sweep_cells
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.techniques import create_step

_MB = 1e6


@dataclass(frozen=True)
class SweepConfig:
    """Pruning levels x precisions x runtimes of one model, and the budgets that they are held against."""

    settings: Settings
    protocol: MeasurementProtocol
    grid: SweepGrid
    budgets: SweepBudgets
    output: Output
    rules: DecisionRules

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> SweepConfig:
        """Return the sweep of some settings by name, the others at their default; raises SettingsError."""
        settings, protocol, grid, budgets, output, rules = SWEEP_DEFAULTS
        own = values_of(grid)
        return cls(
            merge(settings, {name: value for name, value in values.items() if name not in own}),
            merge(protocol, values),
            merge(grid, values),
            merge(budgets, values),
            merge(output, values),
            merge(rules, values),
        )

    @property
    def run_dir(self) -> Path:
        """The folder of all outputs."""
        return self.output.run_dir or Path()

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds to run, one at least."""
        return self.grid.seeds or (self.settings.seed,)

    def settings_of_seed(self, seed: int) -> Settings:
        """Return what decides the weights and artifacts of one seed."""
        return dataclasses.replace(self.settings, seed=seed)

    @property
    def fine_tune(self) -> Step | None:
        """The step that a pruned model goes through, None for no epochs of it."""
        if not self.grid.fine_tune_epochs:
            return None
        return create_step(
            "fine_tune",
            epochs=self.grid.fine_tune_epochs,
            learning_rate=self.grid.fine_tune_learning_rate,
            distill=self.grid.distill,
        )

    @property
    def plan(self) -> SweepPlan:
        """What the outputs are derived with."""
        budgets = self.budgets
        limits = Budgets(
            memory_bytes=_scaled(budgets.active_memory_budget_mb, _MB),
            latency_s=_scaled(budgets.latency_budget_ms, 1e-3),
            accuracy_drop_pp=(
                self.rules.margin_pp if budgets.max_accuracy_drop_pp is None else budgets.max_accuracy_drop_pp
            ),
            use_ci=budgets.pareto_use_ci,
        )
        return SweepPlan(
            model=self.settings.model,
            seeds=self.seeds,
            cells=sweep_cells(self.grid.pruning_levels, self.grid.precisions),
            budgets=tuple(
                limits
                if budget is None
                else dataclasses.replace(
                    limits,
                    size_bytes=budget * _MB,
                    memory_bytes=min(budget * _MB, limits.memory_bytes or float("inf")),
                )
                for budget in budgets.memory_budgets_mb or (None,)
            ),
            power_watts=budgets.power_watts,
            frequency_scale=budgets.cpu_frequency_scale,
            gb_per_s=budgets.memory_bandwidth_gbps,
            gmacs_per_s=budgets.peak_compute_gmacs,
            configuration=tuple(self._texts()),
            rules=self.rules,
        )

    def _texts(self) -> Iterator[tuple[str, str]]:
        """Yield every setting as it was understood."""
        values = values_of(self.settings) | values_of(self.protocol) | values_of(self.grid)
        values |= values_of(self.budgets) | values_of(self.output) | values_of(self.rules)
        for name, value in values.items():
            parts = value if isinstance(value, tuple) else () if value is None else (value,)
            yield name, ", ".join(map(str, parts))


def read_sweep_file(path: Path) -> dict[str, Value]:
    """Return the settings that a file holds.

    Raises SettingsError with the line of every mistake, and what is allowed there.
    """
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
    values: dict[str, Value] = {}
    sources: dict[str, str] = {}
    mistakes: dict[str, None] = {}
    for key, raw in ((str(key), raw) for key, raw in content.items()):
        # YAML reads `on` and `yes` as true.
        where = f"{path}, line {lines[key]}" if key in lines else str(path)
        try:
            found = _read_key(key, raw)
            for earlier in (sources[name] for name in found if name in sources):
                raise SettingsError(f"{key}: {earlier} is there already, in line {lines[earlier]}")
            values |= found
            sources |= dict.fromkeys(found, key)
        except (SettingsError, UnknownNameError) as error:
            mistakes[f"{where}: {explain(error)}"] = None
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return values


def _read_key(key: str, content: object) -> dict[str, Value]:
    """Return the settings that a key stands for; raises SettingsError."""
    known = sweep_settings().values()
    meant = [setting for setting in known if key in setting.keys]
    if not meant:
        raise UnknownNameError(
            unknown_name_message("key", key, dict.fromkeys(key for setting in known for key in setting.keys))
        )
    return {declared.name: _read(declared, key, content) for declared in meant}


def _read(declared: Setting, key: str, content: object) -> Value:
    try:
        value = declared.read(content, declared.keys[key])
    except NotAllowedError as error:
        is_number = isinstance(error.value, str) and _is_number(error.value)
        why = (
            "YAML reads it as text; write a number with a dot, as 5.0e-2"
            if is_number
            else f"Allowed: {declared.described}"
        )
        raise SettingsError(f"{key}: {error.value!r} is not allowed. {why}.") from error
    if declared.name == "runtimes" and isinstance(value, tuple):
        choose_runtimes([str(name) for name in value], RUNTIMES)
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value * unit
