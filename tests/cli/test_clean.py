"""`clean` removes decoded images; `doctor` says how large they are."""

from __future__ import annotations

import json

from tests.cli.invoking import SMALL, Invoke, Place, called_here


def test_decoded_images_are_named_by_doctor_and_removed_by_clean(place: Place) -> None:
    own = Place(place.folder, place.folder / "cache")
    with called_here(own) as invoke:
        assert kept(invoke).startswith("0.0 of 50,000.0 MB in ")
        assert invoke("train", *SMALL, "--epochs", "1", "--run-dir", "run")[0] == 0
        # 5,000 images of 28 x 28.
        assert kept(invoke).startswith("4.0 of ")
        code, printed = invoke("clean", "--json")
        assert code == 0
        (row,) = json.loads(printed)
        assert (row["images"].partition("-")[0], row["mb"], row["outcome"]) == ("mnist5k", "4.0", "removed")
        assert kept(invoke).startswith("0.0 of ")
        assert json.loads(invoke("clean", "--json")[1]) == []


def kept(invoke: Invoke) -> str:
    facts = {fact["what"]: fact for fact in json.loads(invoke("doctor", "--quick", "--json")[1])}
    assert "quant-explorer clean" in facts["decoded images"]["why"]
    finding = facts["decoded images"]["finding"]
    assert isinstance(finding, str)
    return finding
