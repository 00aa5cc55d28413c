"""How long our training loop takes beside a plain one, in one interleaved run.

The plain loop is what the torchvision examples do: ImageFolder with its transforms, a DataLoader,
SGD with momentum, float32, batch 128. Both train `small_cnn` on the same images, a part of an epoch each in
turn; the figure is the ratio of times per image, pair by pair.

    python benchmarks/train.py --data data/cifar10-jpeg
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from quant_explorer.core.progress import Silent
from quant_explorer.datasets import input_spec, load_dataset
from quant_explorer.machine.environment import describe_environment
from quant_explorer.models import load_model
from quant_explorer.pipeline.training.schedule import GROWING_IMAGES, Schedule
from quant_explorer.pipeline.training.trainer import Trainer

PLAIN_BATCH = 128


def main() -> None:
    """Time both loops in turn and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/cifar10-jpeg"), help="ImageFolder root")
    parser.add_argument("--images", type=int, default=6400, help="training images a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()

    ratios, plain_s, ours_s = [], [], []
    plain, ours = PlainLoop(arguments.data, arguments.images), OurLoop(arguments.data, arguments.images)
    plain.run()
    ours.run()
    for turn in range(arguments.turns):
        order: list[PlainLoop | OurLoop] = [plain, ours] if turn % 2 == 0 else [ours, plain]
        seconds = {type(loop): loop.run() for loop in order}
        plain_s.append(seconds[PlainLoop] / plain.images)
        ours_s.append(seconds[OurLoop] / ours.images)
        ratios.append(ours_s[-1] / plain_s[-1])
        print(f"turn {turn + 1}: ours / plain = {ratios[-1]:.3f}", flush=True)
    environment = describe_environment(threads=torch.get_num_threads(), packages=("torch", "torchvision"))
    figures = {
        "ratio_median": round(float(np.median(ratios)), 4),
        "ratio_min": round(min(ratios), 4),
        "ratio_max": round(max(ratios), 4),
        "plain_us_per_image": round(float(np.median(plain_s)) * 1e6, 1),
        "ours_us_per_image": round(float(np.median(ours_s)) * 1e6, 1),
        "turns": arguments.turns,
        "images": arguments.images,
        "threads": torch.get_num_threads(),
        "cpu": environment.cpu,
        "instruction_sets": list(environment.instruction_sets),
        "versions": environment.versions,
    }
    print(json.dumps(figures, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")


class PlainLoop:
    """A loop as the torchvision examples write it."""

    def __init__(self, root: Path, images: int) -> None:
        from torchvision import datasets, transforms

        normalize = transforms.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
        transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                normalize,
            ]
        )
        folder = datasets.ImageFolder(str(root / "train"), transform)
        chosen = np.random.default_rng(0).permutation(len(folder))[:images].tolist()
        self.images = images // PLAIN_BATCH * PLAIN_BATCH
        self.loader = torch.utils.data.DataLoader(
            torch.utils.data.Subset(folder, chosen), PLAIN_BATCH, shuffle=True, num_workers=2, drop_last=True
        )
        self.model = load_model(
            "small_cnn", weights=None, classes=len(folder.classes), image_shape=(3, 32, 32), seed=0
        ).module
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)

    def run(self) -> float:
        """Train on every image once; seconds."""
        self.model.train()
        start = time.perf_counter()
        for batch, labels in self.loader:
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(batch), labels)
            loss.backward()
            self.optimizer.step()
            loss.item()
        return time.perf_counter() - start


class OurLoop:
    """The tool's own Trainer, on images decoded beforehand."""

    def __init__(self, root: Path, images: int) -> None:
        dataset = load_dataset(
            f"imagefolder:{root}", data_dir=Path("data"), seed=0, train_subset=images, progress=Silent()
        )
        self.images = len(dataset.train) // Schedule(1).batch_size * Schedule(1).batch_size
        self.model: nn.Module = load_model(
            "small_cnn",
            weights=None,
            classes=len(dataset.classes),
            image_shape=dataset.image_shape,
            seed=0,
        ).module
        self.trainer = Trainer(dataset, input_spec(dataset, dataset.image_shape), 0, Silent())

    def run(self) -> float:
        """Train one epoch, the search split's accuracy included; seconds."""
        start = time.perf_counter()
        self.trainer.fit(self.model, Schedule(epochs=1, image_scales=GROWING_IMAGES), label="ours")
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
