from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from multiprocessing import Pipe

import numpy as np
import pytest

from quant_explorer.core.errors import WorkerError
from quant_explorer.machine.channel import Channel, create_file
from quant_explorer.pipeline.worker.messages import Hold, Run, Time


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """Both ends in this process: small messages do not block."""
    file = create_file()
    first, second = Pipe()
    pair = Channel(first, file), Channel(second, os.dup(file))
    yield pair
    for end in pair:
        end.close()


@pytest.mark.parametrize("shape", [(0, 3), (1, 3, 2, 2), (32, 3, 224, 224)])
def test_arrays_arrive_as_they_were_sent(ends: tuple[Channel, Channel], shape: tuple[int, ...]) -> None:
    here, there = ends
    batch = np.random.default_rng(0).random(shape, np.float32)
    here.send(Run(batch))
    request = there.receive()
    assert isinstance(request, Run)
    np.testing.assert_array_equal(request.batch, batch)
    assert request.batch.dtype == batch.dtype
    # The sender may write the next message over the file.
    here.send(Hold(batch + 1))
    np.testing.assert_array_equal(request.batch, batch)
    there.receive()
    there.send(batch[:1])
    answer = here.receive()
    assert isinstance(answer, np.ndarray)
    assert answer.flags.writeable


def test_arrays_that_are_not_contiguous_and_several_arrive_too(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    batch = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    here.send([batch, batch[:, :, ::2], batch.transpose(2, 0, 1), Time(3)])
    found = there.receive()
    assert isinstance(found, list)
    np.testing.assert_array_equal(found[0], batch)
    np.testing.assert_array_equal(found[1], batch[:, :, ::2])
    np.testing.assert_array_equal(found[2], batch.transpose(2, 0, 1))
    assert found[3] == Time(3)


def test_no_room_for_a_batch_has_a_sentence(ends: tuple[Channel, Channel]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(
            WorkerError, match=r"4,000 bytes cannot be handed to the worker \(File too large\)"
        ):
            ends[0].send(Run(np.zeros((10, 100), np.float32)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_closed_end_is_found(ends: tuple[Channel, Channel]) -> None:
    ends[0].connection.close()
    with pytest.raises(EOFError):
        ends[1].receive()
