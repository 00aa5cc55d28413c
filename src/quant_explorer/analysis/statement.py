"""Statement: what is claimed of one exported variant, with the observations that it can be held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from quant_explorer.analysis.decide.decision import Candidates
from quant_explorer.analysis.results import RunInfo, VariantResult
from quant_explorer.core.errors import StudyError, UnknownNameError, explain
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import Measurement, Status
from quant_explorer.core.registry import unknown_name_message
from quant_explorer.core.settings.declaration import decode_path

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Statement:
    """The figures of one variant, where and how they were taken, and the predictions they rest on."""

    schema_version: int
    run: RunInfo
    environment: Environment
    variant: VariantResult
    measurement: Measurement

    def encode(self) -> bytes:
        """Return it as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self, enc_hook=str), indent=2) + b"\n"

    @classmethod
    def load(cls, path: Path) -> Statement:
        """Read what `encode` wrote; raises StudyError when it cannot be read or is of another schema."""
        try:
            found = msgspec.json.decode(path.read_bytes(), type=cls, dec_hook=decode_path)
        except (OSError, msgspec.MsgspecError) as error:
            raise StudyError(f"{path}: not a readable statement of figures ({explain(error)})") from error
        if found.schema_version != SCHEMA_VERSION:
            raise StudyError(
                f"{path}: schema version {found.schema_version}, this program reads {SCHEMA_VERSION}"
            )
        return found


def state(
    candidates: tuple[Candidates, ...], run: RunInfo, environment: Environment, name: str, model: str | None
) -> Statement:
    """Return the statement of the variant `name`; `model` says of which model where there are several.

    Raises UnknownNameError for a name that was not recorded, StudyError for a variant without figures and for
    one that several models have.
    """
    models = [found.evidence.model for found in candidates]
    if model is not None and model not in models:
        raise UnknownNameError(unknown_name_message("model", model, models))
    found = [
        (one.evidence, variant)
        for one in candidates
        if model in (None, one.evidence.model)
        for variant in one.variants
    ]
    named = [(evidence, variant) for evidence, variant in found if variant.name == name]
    if not named:
        raise UnknownNameError(
            unknown_name_message(
                "variant", name, {variant.name for _, variant in found if variant.status is Status.OK}
            )
        )
    if len(named) > 1:
        raise StudyError(
            f"{name} is there of several models. Allowed: --model with one of {', '.join(models)}."
        )
    ((evidence, variant),) = named
    if variant.status is not Status.OK:
        raise StudyError(f"{name} {variant.status.explain(variant.reason)}. There is nothing to export.")
    measurement = next(some for some in evidence.measurements if some.variant.digest == variant.digest)
    return Statement(SCHEMA_VERSION, run, environment, variant, measurement)
