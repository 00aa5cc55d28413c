"""What a run and a sweep are asked to do: every setting is one field, and all else derives from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quant_explorer.core.errors import SettingsError
from quant_explorer.core.quantspec import Precision, Target
from quant_explorer.core.recipe import BASELINE
from quant_explorer.core.settings.declaration import Alias, Setting, declared_of, require_allowed, setting
from quant_explorer.core.settings.inputs import InputSettings

# Images of one calibration batch.
CALIBRATION_BATCH = 32
LARGEST_SEED = 2**32 - 1
# Percentage points of top-1.
MARGIN_PP = 0.5
# How figures are taken. Raised when the same artifact on the same machine would come out different: what is
# timed, weighed or counted, warm-up, order of rounds, what is pinned to which core. Studies from before it
# was recorded have 0. Figures of two versions never stand in one table.
PROTOCOL_VERSION = 3

Importance = Literal["l1", "l2", "taylor", "batch_norm"]
Augment = Literal["all", "crop", "flip", "none"]


@dataclass(frozen=True)
class Settings(InputSettings):
    """What decides the weights and artifacts of a run. Raises SettingsError for a value out of range."""

    data: str = setting(
        "mnist5k", "Data set, or imagefolder:PATH.", metavar="NAME", aliases=(Alias("dataset"),)
    )
    model: str = setting(
        "small_cnn",
        "Model; FILE.py:function, package.module:function, torchvision:NAME, timm:NAME, FILE.pt2, FILE.onnx.",
        metavar="NAME",
    )
    data_dir: Path = setting(Path("data"), "Where downloaded data sets lie.")
    weights: Path | None = setting(
        None,
        "Trained weights (.safetensors, .pt, .pth, .ckpt), or DEFAULT (published); nothing is trained.",
    )
    weights_key: str = setting(
        "",
        "Which of several weights in a file, as in model.ema.",
        metavar="KEY",
        unset="the best known",
    )
    seed: int = setting(0, "Of splits, initial weights, batches, rounds.", at_least=0, at_most=LARGEST_SEED)
    epochs: int = setting(5, "Of training the baseline.", at_least=1)
    fine_tune_epochs: int = setting(1, "Of qat_int8 and its control fp32_finetune.", at_least=1)
    label_smoothing: float = setting(0.1, "Of training the baseline.", at_least=0, below=1)
    train_subset: int | None = setting(
        None, "Use N training images, balanced over classes.", at_least=1, metavar="N", unset="all"
    )
    test_subset: int | None = setting(
        None,
        "Report on N test images, balanced over classes.",
        at_least=1,
        metavar="N",
        unset="all",
        aliases=(Alias("val_subset"),),
    )
    engine: str = setting(
        "",
        "PyTorch's quantized engine: x86, fbgemm, onednn, qnnpack.",
        metavar="NAME",
        unset="the one for this CPU",
        aliases=(Alias("quantization_backend"),),
    )
    dataloader_seed: int | None = setting(
        None,
        "Of order and augmentation of training batches alone.",
        at_least=0,
        at_most=LARGEST_SEED,
        unset="--seed",
    )
    batch_size: int = setting(64, "Of training and fine-tuning.", at_least=1)
    learning_rate: float = setting(0.2, "Peak of training the baseline.", above=0)
    calibration_images: int = setting(
        256,
        "For static INT8.",
        at_least=1,
        metavar="N",
        aliases=(Alias("calibration_batches", times=CALIBRATION_BATCH),),
    )
    target: Target = setting("native", "CPU that INT8 is built for: this one, or any of x86-64.")

    augment: Augment = setting("all", "Of training images: shifted crops, mirror images, both or none.")
    flip: bool | None = setting(
        None,
        "Whether a mirror image is still of its class; --augment uses it then.",
        unset="as the data set is",
    )
    qat_learning_rate: float | None = setting(
        None, "Peak of qat_int8 and its control.", above=0, unset="that of the technique"
    )
    float_layers: tuple[str, ...] = setting(
        (),
        "Layers that INT8 leaves in float, by name; * stands for any part.",
        option_name="--float-layer",
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        require_allowed(self)

    @property
    def batch_seed(self) -> int:
        """The seed of the order and augmentation of training images."""
        return self.seed if self.dataloader_seed is None else self.dataloader_seed


@dataclass(frozen=True)
class MeasurementProtocol:
    """How variants are measured (see docs/methodology.md). Raises SettingsError for a value out of range.

    Batch sizes are in ascending order, each once.
    """

    threads: int = setting(1, "Cores every variant is pinned to.", at_least=1)
    batch_sizes: tuple[int, ...] = setting(
        (1, 8, 32),
        "Batch sizes that are timed.",
        at_least=1,
        holds=1,
        range_text="positive numbers, 1 among them (the frontier is drawn at batch 1)",
        metavar="N",
    )
    rounds: int = setting(
        10, "Least number of interleaved rounds.", at_least=2, aliases=(Alias("benchmark_repeats"),)
    )
    precision: float = setting(
        0.02, "Time until every ratio's 95% interval is within this share.", above=0, below=1
    )
    time_limit_s: float = setting(
        120.0,
        "Seconds of rounds beyond the least number, and of scoring a variant.",
        above=0,
        metavar="S",
    )
    answer_timeout_s: float = setting(600.0, "Seconds that a worker may be silent.", above=0, metavar="S")
    warmup_calls: int = setting(
        3,
        "Least number of unmeasured calls before each block.",
        at_least=0,
        aliases=(Alias("benchmark_warmup"),),
    )
    most_rounds: int | None = setting(
        None,
        "Greatest number of rounds.",
        at_least=2,
        unset="no limit",
        aliases=(Alias("benchmark_repeats"),),
    )

    def __post_init__(self) -> None:
        require_allowed(self)
        object.__setattr__(self, "batch_sizes", tuple(sorted(set(self.batch_sizes))))
        if self.most_rounds is not None and self.most_rounds < self.rounds:
            raise SettingsError(
                f"--most-rounds {self.most_rounds} is out of range. Allowed: at least --rounds {self.rounds}."
            )


@dataclass(frozen=True)
class DecisionRules:
    """What counts as a difference when a variant is chosen. Raises SettingsError for a value out of range."""

    margin_pp: float = setting(
        MARGIN_PP, "Loss of accuracy that counts as none.", above=0, below=100, metavar="PP"
    )
    epsilon_latency: float = setting(
        0.0, "Latencies within this share of each other tie.", at_least=0, below=1, metavar="SHARE"
    )
    epsilon_size: float = setting(
        0.01, "Sizes within this share of each other tie.", at_least=0, below=1, metavar="SHARE"
    )

    def __post_init__(self) -> None:
        require_allowed(self)


@dataclass(frozen=True)
class SweepGrid:
    """What a sweep tries: pruning levels x precisions x runtimes. Raises SettingsError."""

    seeds: tuple[int, ...] = setting(
        (),
        "Train, prune and calibrate once for each.",
        at_least=0,
        at_most=LARGEST_SEED,
        metavar="N",
        unset="--seed",
    )
    pruning_levels: tuple[float, ...] = setting(
        (0.0, 0.25, 0.5, 0.7), "Shares of channels that are removed.", at_least=0, below=1, metavar="SHARE"
    )
    precisions: tuple[Precision, ...] = setting(("fp32", "fp16", "int8"), "Precisions.", metavar="NAME")
    runtimes: tuple[str, ...] = setting(
        ("all",), "Runtimes (see `list`), or all.", option_name="--runtime", metavar="NAME"
    )
    importance: Importance = setting("l1", "Of a channel, when pruning.")
    round_to: int = setting(1, "Keep a multiple of this many channels (rounded up).", at_least=1)
    fine_tune_epochs: int = setting(1, "After pruning, and of the control; 0 for none.", at_least=0)
    fine_tune_learning_rate: float = setting(0.02, "Peak of fine-tuning.", above=0)
    distill: bool = setting(False, "Learn from the unpruned model too, while fine-tuning.")
    device: Literal["cpu"] = setting("cpu", "Where everything runs.")

    def __post_init__(self) -> None:
        require_allowed(self)


@dataclass(frozen=True)
class SweepBudgets:
    """What a sweep is held against, and what its estimates rest on. Raises SettingsError.

    MB are 10^6 bytes, rates 10^9 a second.
    """

    memory_budgets_mb: tuple[float, ...] = setting(
        (),
        "For each: files, and peak memory above the empty runtime's, must fit.",
        above=0,
        metavar="MB",
        unset="no limit",
    )
    active_memory_budget_mb: float | None = setting(
        None, "For the peak memory alone.", above=0, metavar="MB", unset="no limit"
    )
    latency_budget_ms: float | None = setting(
        None, "For the median call at batch 1.", above=0, metavar="MS", unset="no limit"
    )
    max_accuracy_drop_pp: float | None = setting(
        None, f"Loss of top-1 against {BASELINE}.", at_least=0, metavar="PP", unset="--margin-pp"
    )
    pareto_use_ci: bool = setting(
        True, "Hold the bad end of an interval against the limits of latency and accuracy, not the point."
    )
    power_watts: float | None = setting(
        None, "For the energy proxy, where no counter is readable.", above=0, metavar="W", unset="no proxy"
    )
    cpu_frequency_scale: float = setting(1.0, "Adds estimates for a slower clock.", above=0, at_most=1)
    memory_bandwidth_gbps: float | None = setting(
        None, "Stands for the measured roof, in GB/s.", above=0, unset="measured"
    )
    peak_compute_gmacs: float | None = setting(
        None, "Stands for the measured roof in every precision, in GMAC/s.", above=0, unset="measured"
    )

    def __post_init__(self) -> None:
        require_allowed(self)


@dataclass(frozen=True)
class Output:
    """Where everything of a run or a sweep goes."""

    run_dir: Path | None = setting(
        None,
        "Everything of one run; of a sweep, with a folder for each seed.",
        unset="runs/<data>-<model>",
        aliases=(Alias("output_dir"),),
    )


# What a sweep is where neither its file nor the command line says anything.
SWEEP_DEFAULTS = (
    Settings(data="fashion-mnist", model="edge_cnn"),
    MeasurementProtocol(),
    SweepGrid(),
    SweepBudgets(),
    Output(Path("runs/sweep")),
    DecisionRules(),
)


def sweep_settings() -> dict[str, Setting]:
    """Return every setting of a sweep by name; the grid's own fine-tuning stands for that of a run."""
    return {declared.name: declared for start in SWEEP_DEFAULTS for declared in declared_of(start)}
