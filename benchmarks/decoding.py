"""How long decoding takes beside torchvision's loader with as many workers, in one interleaved run.

Both read the same JPEGs of 500 x 375, scale the shorter side to 256 and crop 224 x 224, on all cores: ours
in threads, into a new cache folder on disk; theirs by ImageFolder in a DataLoader, its batches thrown away.
The figure is the ratio of times, pair by pair; 1.2 is the target.

    python benchmarks/decoding.py --images 10000
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from quant_explorer.core.data.dataset import InputSpec
from quant_explorer.core.progress import Silent
from quant_explorer.datasets import DataOptions, find_dataset
from quant_explorer.datasets.images.decoding import decoding_threads
from quant_explorer.machine.environment import describe_environment

WIDTH, HEIGHT = 500, 375
SIZE, SHORTER_SIDE = 224, 256
# Coarse patterns with noise compress as photographs do, to some 60 KB.
COARSE, NOISE, QUALITY = 25, 12.0, 90


def main() -> None:
    """Time both in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()

    ratios, theirs_s, ours_s = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        write_images(root, arguments.images)
        for turn in range(arguments.turns):
            order = (time_ours, time_theirs) if turn % 2 else (time_theirs, time_ours)
            seconds = {call: call(root) for call in order}
            ours_s.append(seconds[time_ours])
            theirs_s.append(seconds[time_theirs])
            ratios.append(ours_s[-1] / theirs_s[-1])
            print(f"turn {turn + 1}: ours / torchvision = {ratios[-1]:.3f}", flush=True)
    environment = describe_environment(threads=decoding_threads(), packages=("pillow", "torchvision"))
    figures = {
        "ratio_median": round(float(np.median(ratios)), 4),
        "ratio_min": round(min(ratios), 4),
        "ratio_max": round(max(ratios), 4),
        "ours_images_per_s": round(arguments.images / float(np.median(ours_s)), 1),
        "torchvision_images_per_s": round(arguments.images / float(np.median(theirs_s)), 1),
        "peak_resident_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1),
        "images": arguments.images,
        "workers": decoding_threads(),
        "cpu": environment.cpu,
    }
    content = json.dumps(figures, indent=2)
    print(content)
    if arguments.output:
        arguments.output.write_text(content + "\n")


def write_images(root: Path, count: int) -> None:
    """Write `count` images of two classes, half to train with and half to test with."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for number in range(max(1, count // 4)):
                coarse = rng.integers(0, 256, (HEIGHT // COARSE, WIDTH // COARSE, 3), np.uint8)
                image = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT)), np.float32)
                noisy = image + NOISE * rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32)
                pixels = noisy.clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number:06}.jpg", quality=QUALITY)


def time_ours(root: Path) -> float:
    """Return the seconds that a new cache folder takes."""
    spec = InputSpec((3, SIZE, SIZE), (), (), resize=SHORTER_SIDE)
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        found = find_dataset(f"imagefolder:{root}", DataOptions(root, Path(cache)), Silent())
        found.load(spec)
        return time.perf_counter() - start


def time_theirs(root: Path) -> float:
    """Return the seconds that the loader takes for the same images."""
    transform = Compose([Resize(SHORTER_SIDE), CenterCrop(SIZE), PILToTensor()])
    start = time.perf_counter()
    for part in ("train", "test"):
        images = ImageFolder(str(root / part), transform)
        for _ in DataLoader(images, batch_size=64, num_workers=decoding_threads()):
            pass
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
