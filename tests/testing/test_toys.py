import itertools

import numpy as np
import torch

from quant_explorer.datasets import input_spec, prepare
from quant_explorer.testing.reference import differences
from quant_explorer.testing.toys import (
    TOY_CLASSES,
    TOY_SHAPE,
    ToyTraining,
    toy_batches,
    toy_dataset,
    toy_linear_model,
    toy_model,
)


def test_models_give_a_logit_a_class_and_leave_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    for model, shape in ((toy_model(), TOY_SHAPE), (toy_linear_model(), (3, 4, 4))):
        assert not model.training
        assert model(torch.zeros(2, *shape)).shape == (2, len(TOY_CLASSES))
    assert torch.equal(before, torch.get_rng_state())


def test_seed_decides_model_and_batches() -> None:
    assert differences(toy_model(seed=1), toy_model(seed=1)) == []
    assert "0.weight" in differences(toy_model(seed=1), toy_model(seed=2))
    np.testing.assert_array_equal(toy_batches(seed=1), toy_batches(seed=1))
    assert np.shape(toy_batches(count=2, size=5)) == (2, 5, *TOY_SHAPE)


def test_dataset_keeps_the_promises_of_its_type() -> None:
    data = toy_dataset(train=64, search=16, report=24)
    assert data.image_shape == TOY_SHAPE
    assert data.train.pixels.dtype == np.uint8
    assert [len(part) for part in (data.train, data.calibrate, data.search, data.report)] == [64, 32, 16, 24]
    held = [set(part.indices.tolist()) for part in (data.train, data.search, data.report)]
    assert all(first.isdisjoint(second) for first, second in itertools.combinations(held, 2))
    assert set(data.calibrate.indices.tolist()) <= held[0]
    for part in (data.train, data.search, data.report):
        assert np.unique(np.bincount(part.labels)).size == 1
    batch = prepare(data.train.take(slice(None)), input_spec(data, TOY_SHAPE))
    np.testing.assert_allclose(batch.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(batch.std((0, 2, 3)), 1, atol=1e-4)


def test_dataset_is_learnable_and_not_trivial() -> None:
    data = toy_dataset()
    pixels, labels = data.train.take(slice(None)).astype(float), data.train.labels
    means = np.stack([pixels[labels == label].mean(0) for label in range(len(TOY_CLASSES))])
    distance = ((data.report.take(slice(None)).astype(float)[:, None] - means) ** 2).sum((2, 3, 4))
    assert (distance.argmin(1) == data.report.labels).mean() > 0.95
    assert len(np.unique(data.report.take(slice(None)), axis=0)) == len(data.report)


def test_toy_training_trains_and_remembers() -> None:
    model, training = toy_model(), ToyTraining()
    training(model, epochs=2, learning_rate=0.1, label="x")
    assert not model.training
    assert "0.weight" in differences(toy_model(), model)
    assert [(call.model, call.epochs, call.learning_rate) for call in training.calls] == [(model, 2, 0.1)]
