"""Artifacts of the toy model on every runtime, lowered once for all the tests that only open them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from quant_explorer.core.contracts import Candidate, Lowering, Runtime
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing.conformance_runtime import SPECS
from quant_explorer.testing.toys import toy_batches, toy_model


@dataclass(frozen=True)
class Lowered:
    """Files of the toy model, which tests must not change."""

    runtime: Runtime
    folder: Path
    lowering: Lowering


@pytest.fixture(scope="session")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Lowered]:
    """Return the toy model's files on a runtime by spec, or skip with the reason why there are none."""
    known: dict[tuple[str, str], Lowered] = {}

    def lower(name: str, spec: str) -> Lowered:
        runtime = RUNTIMES[name]()
        candidate = Candidate(toy_model(), SPECS[spec])
        reason = runtime.unavailable() or runtime.unsupported(candidate)
        if reason:
            pytest.skip(reason)
        if (name, spec) not in known:
            folder = tmp_path_factory.mktemp(f"{name}-{spec}")
            known[name, spec] = Lowered(runtime, folder, runtime.lower(candidate, toy_batches(), folder))
        return known[name, spec]

    return lower
