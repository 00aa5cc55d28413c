from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from quant_explorer.pipeline.training.data_parallel import DataParallel
from quant_explorer.testing.toys import toy_model

IMAGES = torch.randn(13, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(13) % 4


def loss_of(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(images), labels)


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield 4
    torch.set_num_threads(before)


def without_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 4))


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_gradient_is_that_of_the_whole_batch(parts: int) -> None:
    model = without_norm()
    expected = loss_of(model, IMAGES, LABELS)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    with DataParallel(model, parts, example=IMAGES[:2]) as parallel:
        loss = parallel.backward(IMAGES, LABELS, loss_of)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        # Sums of 13 terms in another order.
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-6)


def test_running_statistics_are_those_of_the_first_part() -> None:
    model, alone = toy_model().train(), toy_model().train()
    with DataParallel(model, 2, example=IMAGES[:2]) as parallel:
        parallel.backward(IMAGES, LABELS, loss_of)
    alone(IMAGES[:7])
    statistics = dict(alone.named_buffers())
    assert statistics
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, statistics[name])


def test_parts_have_threads_of_their_own_and_share_those_there_are() -> None:
    seen: dict[int, int] = {}
    both_are_here = threading.Barrier(2, timeout=30)

    def watch(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        both_are_here.wait()
        seen[threading.get_ident()] = torch.get_num_threads()
        return loss_of(model, images, labels)

    with DataParallel(without_norm(), 2, example=IMAGES[:2]) as parallel:
        parallel.backward(IMAGES, LABELS, watch)
    assert list(seen.values()) == [2, 2]
    assert threading.get_ident() not in seen


def test_parts_that_draw_random_numbers_are_computed_in_turn() -> None:
    model = nn.Sequential(nn.Dropout(0.5), without_norm()).train()

    def gradient() -> tuple[float, torch.Tensor]:
        torch.manual_seed(3)
        with DataParallel(model, 2, example=IMAGES[:2]) as parallel:
            torch.manual_seed(3)
            loss = parallel.backward(IMAGES, LABELS, watch)
        grad = next(model.parameters()).grad
        assert grad is not None
        return loss, grad

    seen: list[tuple[int, int]] = []

    def watch(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append((len(images), torch.get_num_threads()))
        return loss_of(model, images, labels)

    loss, grad = gradient()
    assert seen == [(7, 4), (6, 4)]
    again, same = gradient()
    assert again == loss
    assert torch.equal(same, grad)


def test_parameters_without_a_gradient_have_none() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.frozen, self.idle = nn.Linear(768, 4), nn.Linear(768, 768), nn.Linear(2, 2)
            self.frozen.requires_grad_(False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.used(self.frozen(images.flatten(1)))
            return logits

    model = Idle()
    with DataParallel(model, 2, example=IMAGES[:2]) as parallel:
        parallel.backward(IMAGES, LABELS, loss_of)
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {"used.weight", "used.bias"}


def test_threads_are_given_back_also_after_a_failure(threads: int) -> None:
    def fail(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no memory for this part")

    with (
        pytest.raises(RuntimeError, match="no memory for this part"),
        DataParallel(without_norm(), 2, example=IMAGES[:2]) as parallel,
    ):
        parallel.backward(IMAGES, LABELS, fail)
    assert torch.get_num_threads() == threads
