from __future__ import annotations

from dataclasses import fields, replace

import pytest

from quant_explorer.core.difference import Facts
from quant_explorer.datasets import input_spec
from quant_explorer.pipeline.training import schedule as schedule_module
from quant_explorer.pipeline.training.schedule import Schedule, facts_of_training
from quant_explorer.testing.toys import toy_dataset

DATA = toy_dataset(train=8, search=4, report=4)
SPEC = input_spec(DATA, DATA.image_shape)
SCHEDULE = Schedule(3, autocast=False)


def facts(schedule: Schedule) -> Facts:
    return facts_of_training(schedule, DATA, SPEC, seed=0)


OTHERS = {
    **dict.fromkeys(("epochs", "batch_size", "parts"), 7),
    **dict.fromkeys(("learning_rate", "momentum", "weight_decay", "label_smoothing", "warmup_share"), 0.3),
    "autocast": True,
    "image_scales": ((0.5, 0.5),),
}


@pytest.mark.parametrize("name", [field.name for field in fields(Schedule)])
def test_every_part_of_a_schedule_decides(name: str) -> None:
    assert facts(replace(SCHEDULE, **{name: OTHERS[name]})) != facts(SCHEDULE)  # type: ignore[arg-type]


def test_so_do_data_seed_code_library_and_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule(3)
    found = [
        facts_of_training(schedule, replace(DATA, digest="other"), SPEC, 0),
        facts_of_training(schedule, replace(DATA, flip=not DATA.flip), SPEC, 0),
        facts_of_training(schedule, DATA, replace(SPEC, mean=(0.0, 0.0, 0.0)), 0),
        facts_of_training(schedule, DATA, SPEC, 1),
    ]
    for has in (True, False):
        monkeypatch.setattr(schedule_module, "has_arithmetic", lambda *_, has=has: has)
        found.append(facts(schedule))
    monkeypatch.setattr(schedule_module, "TRAINING_VERSION", 0)
    found.append(facts(schedule))
    monkeypatch.setattr(schedule_module, "installed_version", lambda package: "0.0")
    found.append(facts(schedule))
    assert len({str(schedule) for schedule in found}) == len(found)
