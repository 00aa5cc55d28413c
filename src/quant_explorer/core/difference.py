"""What differs between two descriptions of how something was made or measured, field by field, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quant_explorer.core.host.environment import Environment
from quant_explorer.core.recipe import Provenance, Recipe, Step

UNEXPLAINED = "what is here does not say how it was made"
# What a description says, by the name that a reader knows it by; a value that was not recorded is "".
Facts = Mapping[str, str]

# Their values are digests, which tell a reader nothing.
OPAQUE = ("data", "preprocessing", "float weights", "initial weights", "fine-tuning")


@dataclass(frozen=True)
class Difference:
    """One fact that two descriptions do not share, with what each says of it."""

    name: str
    before: str
    now: str

    def as_change(self) -> str:
        """Return it as a clause on what time changed: `torch 2.12.0 is now 2.13.0`."""
        if self.name in OPAQUE:
            return f"{self.name} changed"
        if not self.now:
            return f"{self.name} {self.before} is gone"
        return f"{self.name} {self.before or '(not recorded)'} is now {self.now}"

    def as_contrast(self) -> str:
        """Return it as a clause on two places: `torch 2.12.0 there, 2.13.0 here`."""
        return f"{self.name} {self.before or 'not recorded'} there, {self.now or 'not recorded'} here"


def find_differences(before: Facts, now: Facts) -> tuple[Difference, ...]:
    """Return what two descriptions do not share, in the order of their facts."""
    names = dict.fromkeys((*now, *before))
    found = (Difference(name, before.get(name, ""), now.get(name, "")) for name in names)
    return tuple(difference for difference in found if difference.before != difference.now)


def describe_changes(found: Iterable[Difference]) -> str:
    """Return the differences as clauses, each once."""
    return "; ".join(dict.fromkeys(difference.as_change() for difference in found)) or UNEXPLAINED


def describe_contrasts(found: Iterable[Difference]) -> str:
    """Return the differences of two places as clauses."""
    return "; ".join(difference.as_contrast() for difference in found)


def find_least_differences(earlier: Iterable[Facts], now: Facts) -> tuple[Difference, ...]:
    """Return how `now` differs from the nearest of `earlier`; nothing when there is none."""
    return min((find_differences(before, now) for before in earlier), key=len, default=())


def facts_of_techniques(steps: Iterable[Step]) -> Facts:
    """Return the versions of the techniques of a recipe."""
    return {f"technique {step.technique}": str(step.version) for step in steps}


def facts_of_provenance(recipe: Recipe, provenance: Provenance) -> Facts:
    """Return what decides the artifact of a recipe, but for what was asked for."""
    return {
        **dict(provenance.versions),
        f"lowering of {recipe.runtime}": str(provenance.lowering or ""),
        **facts_of_techniques(recipe.steps),
        "CPU features": ", ".join(provenance.cpu) or "none",
        "data": provenance.calibration,
        "preprocessing": provenance.preprocessing,
        "float weights": provenance.weights,
        "fine-tuning": provenance.training,
    }


def facts_of_environment(environment: Environment) -> Facts:
    """Return everything that makes an environment another one."""
    return {
        "CPU": environment.cpu,
        "instruction sets": " ".join(environment.instruction_sets) or "none",
        "cores": str(environment.cores),
        "memory": f"{environment.memory_bytes:,} bytes",
        "threads": str(environment.threads),
        "system": environment.os,
        "Python": environment.python,
        **environment.versions,
        "measuring protocol": str(environment.protocol or ""),
        **environment.isa_limits,
    }
