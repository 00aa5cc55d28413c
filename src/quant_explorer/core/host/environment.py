"""The machine, and the settings on it, that figures are of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from quant_explorer.core.host.architecture import HALF_PRECISIONS, has_arithmetic
from quant_explorer.core.quantspec import Precision


@dataclass(frozen=True)
class Environment:
    """The machine and settings a measurement was taken in. Different environments are never ranked together.

    `versions` are those of everything that matters to a figure, this package among them; `memory_bytes` is
    the machine's. `protocol` is the version of how figures are taken, 0 where it was not recorded.
    `isa_limits` are the variables that kept libraries from instruction sets that the machine has.
    """

    digest: str
    cpu: str
    instruction_sets: tuple[str, ...]
    cores: int
    memory_bytes: int
    threads: int
    os: str
    python: str
    versions: dict[str, str]
    protocol: int = 0
    isa_limits: dict[str, str] = field(default_factory=dict)

    def emulates(self, precision: Precision) -> bool:
        """Whether the machine is known to have no arithmetic of a half precision of its own."""
        known = precision in HALF_PRECISIONS and bool(self.instruction_sets)
        return known and not has_arithmetic(precision, self.instruction_sets)

    def is_but_for_threads(self, other: Environment) -> bool:
        """Whether `other` is the same machine with the same settings, on as many threads or on others."""
        return replace(self, digest=other.digest, threads=other.threads) == other

    def is_same_machine(self, other: Environment) -> bool:
        """Whether ratios of latencies compare, whatever the versions of libraries are."""
        mine = (self.cpu, self.instruction_sets, self.isa_limits, self.threads, self.protocol)
        return mine == (other.cpu, other.instruction_sets, other.isa_limits, other.threads, other.protocol)
