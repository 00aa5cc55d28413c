import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from results_schema import SCHEMA_PATH
from tests.cli.invoking import ONNX, QUICK, SMALL, Invoke, Place, called_here

pytestmark = pytest.mark.slow
CONFIG = "static_int8_per_tensor"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path, light_baseline: None) -> Path:
    place = Place(tmp_path_factory.mktemp("multi"), shared_cache)
    wanted = ("--model", "small_cnn", "--config", "fp32_baseline", "--config", CONFIG, "--epochs", "1")
    with called_here(place) as call:
        code, printed = call("multi-bench", *wanted, *ONNX, *SMALL, *QUICK, "--run-dir", "run")
    assert code == 0, printed
    return place.folder / "run" / "report"


@pytest.fixture
def document(report: Path, place: Place) -> Path:
    """A copy of the results that a test may change."""
    path = place.folder / "multi_results.json"
    path.write_bytes((report / "multi_results.json").read_bytes())
    return path


def change_cell(path: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    content = json.loads(path.read_bytes())
    (cell,) = (variant for variant in content["variants"] if variant["config"] == CONFIG)
    change(cell)
    path.write_text(json.dumps(content))


def test_it_reports_each_model_on_its_own(report: Path) -> None:
    content = json.loads((report / "multi_results.json").read_bytes())
    jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_bytes())).validate(content)
    assert {variant["model"] for variant in content["variants"]} == {"small_cnn"}
    assert all(variant["status"] == "ok" for variant in content["variants"])
    # It takes the images as they are, so it was trained on them.
    assert all(variant["accuracy"] for variant in content["variants"])
    assert "small_cnn" in (report / "multi_pareto.md").read_text()
    assert (report / "multi_pareto.png").is_file()


def test_report_renders_it_again(report: Path, place: Place, invoke: Invoke) -> None:
    before = (report / "multi_results.json").read_bytes()
    code, printed = invoke("report", "--run-dir", report.parent, "--json")
    assert code == 0
    assert printed.encode() == before


def test_the_gate_lets_a_sound_result_pass(document: Path, invoke: Invoke) -> None:
    code, printed = invoke("gate-size", document)
    assert code == 0
    assert "small enough" in printed


@pytest.mark.parametrize(
    ("change", "sentences"),
    [
        (lambda cell: cell["size"].update(bytes=10_000_000), "the limit is 50%"),
        (lambda cell: cell["executed"].update(int8_mac_fraction=0.5), "at least 0.9 must"),
        (lambda cell: cell.update(status="died", reason="killed by signal 9"), "killed by signal 9"),
    ],
)
def test_the_gate_stops_what_does_not_pay(
    document: Path,
    invoke: Invoke,
    change: Callable[[dict[str, dict[str, object]]], object],
    sentences: str,
) -> None:
    change_cell(document, change)
    code, printed = invoke("gate-size", document, "--json")
    assert code == 1
    assert [sentences in violation["message"] for violation in json.loads(printed)] == [True]


def test_the_gate_misses_a_model_that_must_be_there(document: Path, invoke: Invoke) -> None:
    code, printed = invoke("gate-size", document, "--model", "resnet18")
    assert code == 1
    assert "not in the results" in printed


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"schema_version": 99}'])
def test_an_unreadable_file_is_wrong_input(place: Place, invoke: Invoke, content: bytes | None) -> None:
    path = place.folder / "results.json"
    if content is not None:
        path.write_bytes(content)
    code, printed = invoke("gate-size", path)
    assert code == 2
    assert "results.json" in printed
    assert "Traceback" not in printed


def test_an_unknown_model_is_found_before_the_first_is_trained(place: Place, invoke: Invoke) -> None:
    code, printed = invoke("multi-bench", "--model", "small_cnn", "--model", "resnet81")
    assert code == 2
    assert "unknown model 'resnet81'. Did you mean 'resnet18'?" in printed
    assert not (place.folder / "runs").exists()
