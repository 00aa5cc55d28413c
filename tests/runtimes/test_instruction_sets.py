"""INT8 under lesser instruction sets, of which ONNX Runtime and XNNPACK cannot be told."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from quant_explorer.core.recipe import ParameterValue
from quant_explorer.machine.cpu import instruction_sets
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing import near_white
from quant_explorer.testing.instruction_sets import RESTRICTIONS, UNRESTRICTED, VNNI, Restriction
from quant_explorer.testing.reference import float_logits
from tests.kept_objects import kept_objects

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMES = tuple(
    name
    for name in ("eager", "torchscript", "openvino", "inductor")
    if RUNTIMES[name]().unavailable() is None
)
# Weights of OpenVINO, activations of the others: what is left of either where ranges are reduced.
REDUCED_LEVELS = (63.5, 127)
PROCESS = """
import json, sys
from pathlib import Path
from quant_explorer.core.contracts import Candidate
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing import near_white

images, results = near_white.network_images(), []
for name, target, folder, options in json.load(sys.stdin):
    needs = ()
    if options is None:
        Path(folder).mkdir()
        wanted = "native" if target == "own" else target
        spec = QuantSpec("int8", "static", "per_channel", "minmax", target=wanted)
        lowering = RUNTIMES[name]().lower(Candidate(near_white.network(), spec), (images,), Path(folder))
        options, needs = lowering.options, lowering.needs
    runtime = RUNTIMES[name](**dict(options))
    logits = runtime.open(Path(folder)).run(images).tolist()
    results.append((name, target, folder, options, needs, RUNTIMES[name]().cpu_features(), logits))
print(json.dumps(results))
"""


class Files(msgspec.Struct, frozen=True, array_like=True):
    """Of the near-white network; without options they are still to be made."""

    runtime: str
    target: str
    folder: str
    options: tuple[tuple[str, ParameterValue], ...] | None = None


class Ran(msgspec.Struct, frozen=True, array_like=True):
    """What a process says of files that it made or opened, of its own CPU and of what it computed."""

    runtime: str
    target: str
    folder: str
    options: tuple[tuple[str, ParameterValue], ...]
    needs: tuple[str, ...]
    features: tuple[str, ...]
    logits: tuple[tuple[float, ...], ...]

    @property
    def files(self) -> Files:
        return Files(self.runtime, self.target, self.folder, self.options)

    @property
    def classes(self) -> NDArray[np.int64]:
        classes: NDArray[np.int64] = np.argmax(self.logits, axis=1)
        return classes


def run(restriction: Restriction, files: Sequence[Files]) -> tuple[Ran, ...]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROCESS],
        input=msgspec.json.encode(files),
        env=restriction.environment(),
        cwd=ROOT,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=tuple[Ran, ...])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Iterator[tuple[Ran, ...]]:
    """Return files made with the whole CPU: portable ones of every runtime, and native ones."""
    folder = tmp_path_factory.mktemp("whole")
    with kept_objects(shared_folder):
        wanted = [*((name, "portable") for name in NAMES), ("eager", "native"), ("openvino", "native")]
        yield run(
            UNRESTRICTED,
            [
                Files(name, target, str(folder / f"{name}-{target}"))
                for name, target in wanted
                if name in NAMES
            ],
        )


@pytest.fixture(params=RESTRICTIONS, ids=lambda restriction: restriction.name, scope="module")
def restriction(request: pytest.FixtureRequest) -> Restriction:
    found: Restriction = request.param
    reason = found.explain_no_effect()
    if reason is not None:
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def ran(
    restriction: Restriction, built: tuple[Ran, ...], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Ran]:
    """Return what a restricted process computes: from what was built, and from native files of its own."""
    folder = tmp_path_factory.mktemp("restricted")
    own = [Files(name, "own", str(folder / name)) for name in NAMES]
    return {
        (result.runtime, result.target): result
        for result in run(restriction, [*own, *(result.files for result in built)])
    }


def test_the_whole_cpu_is_exact_by_vnni_where_it_has_it(built: tuple[Ran, ...]) -> None:
    has_vnni = bool(set(VNNI) & set(instruction_sets()))
    assert {result.runtime: "VNNI" in result.features for result in built} == dict.fromkeys(NAMES, has_vnni)
    for result in built:
        assert ("VNNI" in result.needs) == (has_vnni and result.target == "native")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["own", "portable"])
def test_near_white_is_right(ran: dict[tuple[str, str], Ran], name: str, target: str) -> None:
    """In native files that were made under the restriction, and in portable ones of the whole CPU."""
    result = ran[name, target]
    assert "VNNI" not in (*result.features, *result.needs)
    expected = float_logits(near_white.network(), near_white.network_images())
    np.testing.assert_array_equal(result.classes, near_white.labels())
    share = near_white.largest_error(*REDUCED_LEVELS)
    assert np.abs(np.array(result.logits) - expected).max() <= share * np.abs(expected).max()


@pytest.mark.parametrize("name", ["eager", "openvino"])
def test_full_range_overflows_for_want_of_what_it_needs(
    ran: dict[tuple[str, str], Ran], built: tuple[Ran, ...], name: str
) -> None:
    whole = next(result for result in built if (result.runtime, result.target) == (name, "native"))
    assert whole.needs == ("VNNI",)
    np.testing.assert_array_equal(whole.classes, near_white.labels())
    assert (ran[name, "native"].classes != near_white.labels()).any()
