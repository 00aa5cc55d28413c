"""What decides the outcome of training: the schedule, the data, the arithmetic, and the code itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from quant_explorer.core.data.dataset import Dataset, InputSpec
from quant_explorer.core.difference import Facts
from quant_explorer.core.host.architecture import has_arithmetic
from quant_explorer.core.host.packages import installed_version
from quant_explorer.core.settings.groups import Augment
from quant_explorer.machine.cpu import instruction_sets

# Raised when the same parameters would train other weights: another augmentation or order of the images,
# loss, optimizer, distillation. Weights of another version are trained again.
TRAINING_VERSION = 1
# Shares of the steps, and by what images are scaled until then: small ones first, which cost less.
# Sources: Howard, "Training Imagenet in 3 hours for USD 25" (progressive resizing), 2018; Tan and Le,
# "EfficientNetV2", 2021, section 4.
GROWING_IMAGES = ((0.3, 0.5), (0.65, 0.75))


@dataclass(frozen=True)
class Schedule:
    """SGD with Nesterov momentum under a one-cycle learning rate.

    Source: Smith and Topin, "Super-Convergence", 2018. `learning_rate` is the peak, reached after
    `warmup_share` of the steps. `autocast` multiplies in bfloat16 where the processor does so in hardware.
    `image_scales` are pairs (share of the steps, scale of the images until then); full size follows.
    A batch is computed in `parts` side by side, if none is smaller than `LEAST_PART` of `training.py`.
    """

    epochs: int
    learning_rate: float = 0.2
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    warmup_share: float = 0.2
    autocast: bool = True
    image_scales: tuple[tuple[float, float], ...] = ()
    # Not the number of cores, which would decide what batch norms see.
    parts: int = 2

    @property
    def bfloat16(self) -> bool:
        """Whether training multiplies in bfloat16 on this machine."""
        return self.autocast and has_arithmetic("bf16", instruction_sets())


def facts_of_training(
    schedule: Schedule, dataset: Dataset, spec: InputSpec, seed: int, augment: Augment = "all"
) -> Facts:
    """Return all that decides the outcome of training but the model; a digest is taken of it.

    An `augment` at its default is left out, as weights of earlier versions have it.
    """
    return {
        "torch": installed_version("torch") or "",
        "training code": str(TRAINING_VERSION),
        "data": dataset.digest,
        **({"training images": undecoded.digest} if (undecoded := dataset.train.undecoded) else {}),
        "preprocessing": spec.digest,
        "mirrored images": str(dataset.flip),
        **({} if augment == "all" else {"augmentation": augment}),
        "seed of batches": str(seed),
        "bfloat16 products": str(schedule.bfloat16),
        **{name.replace("_", " "): str(value) for name, value in dataclasses.asdict(schedule).items()},
    }
