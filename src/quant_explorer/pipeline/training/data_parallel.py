"""The gradient of a batch whose parts are computed side by side, each on threads of its own.

Threads that each have a part of the batch meet once a step; those that share every operator meet in each.
Source: Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", 2020.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from types import TracebackType

import torch
from torch import nn

LossOf = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]
_Gradients = Sequence[torch.Tensor | None]


class DataParallel:
    """`parts` replicas of a model in training mode that share its parameters. Use it as a context manager.

    Batch norms normalize each part by its own statistics, and the model keeps the running ones of the first
    part, as in the paper (section 4.1: buffers are those of rank 0). Parts of a model that draws random
    numbers are computed in turn: threads would draw in an order that differs from run to run.
    """

    def __init__(self, model: nn.Module, parts: int, *, example: torch.Tensor) -> None:
        """Make the replicas; `example` (n, channels, height, width) is what the model is tried on."""
        self._replicas = [model, *(_replica(model) for _ in range(parts - 1))]
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._threads = torch.get_num_threads()
        side_by_side = 1 < parts <= self._threads and not _draws_random_numbers(_replica(model), example)
        workers = parts if side_by_side else 1
        self._pool = ThreadPoolExecutor(
            workers, initializer=torch.set_num_threads, initargs=(self._threads // workers,)
        )

    def __enter__(self) -> DataParallel:
        # Threads of this one's operators would spin beside those of the pool.
        torch.set_num_threads(1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()
        torch.set_num_threads(self._threads)

    def backward(self, batch: torch.Tensor, labels: torch.Tensor, loss_of: LossOf) -> float:
        """Set `grad` of the model's parameters to that of the mean loss over the batch, and return the loss.

        `loss_of` maps a replica, images and labels to their mean loss.
        """

        def part(replica: nn.Module, images: torch.Tensor, truth: torch.Tensor) -> tuple[float, _Gradients]:
            loss = loss_of(replica, images, truth) * (len(images) / len(batch))
            # Not backward(): threads would add to `grad` in an order that differs from run to run.
            return loss.item(), torch.autograd.grad(loss, self._parameters, allow_unused=True)

        count = len(self._replicas)
        results = list(self._pool.map(part, self._replicas, batch.chunk(count), labels.chunk(count)))
        for parameter, gradients in zip(
            self._parameters, zip(*(gradients for _, gradients in results), strict=True), strict=True
        ):
            found = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = reduce(torch.add, found) if found else None
        return sum(loss for loss, _ in results)


def _replica(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def _draws_random_numbers(model: nn.Module, example: torch.Tensor) -> bool:
    before = torch.get_rng_state()
    with torch.no_grad():
        model(example)
    return not torch.equal(torch.get_rng_state(), before)
