"""Lowers the zoo on every runtime and writes the table of what came out into docs/models.md.

    python tools/zoo.py --publish             every cell that is missing in runs/zoo/cells.jsonl, the tables
    python tools/zoo.py --families --publish  the same for ten families of torchvision
    python tools/zoo.py --runtime eager --specimen add_alpha --config static_int8_per_channel

A cell is one specimen in one configuration on one runtime. Each runtime's cells are computed by a process of
their own (a crash inside a library ends one cell, not the run), and opened by the product's worker process.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from quant_explorer.core.errors import BuildError
from quant_explorer.core.registry import Registry
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing.zoo import ZOO, Specimen
from quant_explorer.testing.zoo.cells import CONFIGS, SpecimenResult, Verdict, examine_all
from quant_explorer.testing.zoo.families import FAMILIES
from zoo_table import insert_tables

CELLS: Final = Path("runs/zoo/cells.jsonl")
RESULTS: Final = Path("results/zoo/cells.json")
DOCUMENT: Final = Path("docs/models.md")
NOTICED_DB: Final = 3.0
# What costs seconds is done for every specimen; what costs more, for the two that people ask for first.
SLOW: Final = ("inductor", "executorch")
FIRST: Final = ("fp32", "static_int8_per_channel")
Key = tuple[str, str, str]


def main() -> None:
    """Compute the missing cells, then write the tables; exit code 1 when a cell got worse."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runtime", choices=tuple(RUNTIMES), action="append")
    parser.add_argument("--config", choices=tuple(CONFIGS), action="append")
    parser.add_argument("--specimen", action="append", help="only these; all without")
    parser.add_argument("--families", action="store_true", help="torchvision's families instead of the zoo")
    parser.add_argument("--cells", type=Path, default=CELLS, help="where cells are kept, to go on from")
    parser.add_argument("--jobs", type=int, default=2, help="runtimes at the same time")
    parser.add_argument("--publish", action="store_true", help="write results/zoo and docs/models.md")
    parser.add_argument("--serve", choices=tuple(RUNTIMES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    kept: Path = arguments.cells
    kept.parent.mkdir(parents=True, exist_ok=True)
    specimens = FAMILIES if arguments.families else ZOO
    chosen = [specimens[name] for name in arguments.specimen or specimens]
    if arguments.serve:
        serve(arguments.serve, missing(chosen, arguments.serve, arguments.config, kept), specimens, kept)
        return
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [
            pool.submit(compute, runtime, chosen, arguments.config, kept)
            for runtime in arguments.runtime or RUNTIMES
        ]
    for run in runs:
        run.result()
    if arguments.publish:
        sys.exit(publish(read(kept)))


def publish(cells: Sequence[SpecimenResult]) -> int:
    """Write the results and the tables; return 1 and say which when cells are worse than those published."""
    before = msgspec.json.decode(RESULTS.read_bytes(), type=list[SpecimenResult]) if RESULTS.exists() else []
    published = {cell.key: cell for cell in before}
    worse = [cell for cell in cells if is_worse(cell, published.get(cell.key))]
    for cell in worse:
        print(f"worse than published: {cell.line()}")
    known = {name: number for number, name in enumerate([*ZOO, *FAMILIES])}
    # Durations and counts differ from run to run, and nobody compares them.
    stripped = [replace(cell, seconds=0.0, macs={}, float_macs=0) for cell in cells]
    merged = {cell.key: cell for cell in (*before, *stripped) if cell.specimen in known}
    ordered = sorted(merged.values(), key=lambda cell: (known[cell.specimen], cell.runtime, cell.config))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_bytes(b"[\n" + b",\n".join(map(msgspec.json.encode, ordered)) + b"\n]\n")
    text = insert_tables(DOCUMENT.read_text(), "zoo", ZOO, ordered)
    DOCUMENT.write_text(insert_tables(text, "families", FAMILIES, ordered))
    return 1 if worse else 0


def is_worse(cell: SpecimenResult, before: SpecimenResult | None) -> bool:
    """Say whether a cell was right and is not, or has lost more decibels than another machine costs."""
    if before is None or before.verdict != Verdict.RIGHT:
        return False
    lost = 0.0 if cell.db is None or before.db is None else before.db - cell.db
    return cell.verdict != Verdict.RIGHT or (cell.simulated_db is not None and lost > NOTICED_DB)


def compute(runtime: str, specimens: Sequence[Specimen], configs: Sequence[str] | None, kept: Path) -> None:
    """Let processes compute the missing cells of `runtime`, a new one where one died."""
    while missing(specimens, runtime, configs, kept):
        before = len(read(kept))
        code = subprocess.run([sys.executable, *sys.argv, "--serve", runtime], check=False).returncode
        left = missing(specimens, runtime, configs, kept)
        if code == 0:
            return
        if code > 0 and len(read(kept)) == before:
            raise BuildError(f"the process for {runtime} ended with exit code {code} before its first cell")
        specimen, _, config = left[0]
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        append(
            kept,
            SpecimenResult(specimen, runtime, config, Verdict.CRASH, reason=f"the lowering died ({how})"),
        )


def serve(runtime: str, keys: Sequence[Key], specimens: Registry[Specimen], kept: Path) -> None:
    """Compute the cells `keys` in this process, one line of `kept` each."""
    for number, cell in enumerate(examine_all(runtime, keys, specimens, kept.parent), start=1):
        append(kept, cell)
        print(f"[{time.strftime('%H:%M:%S')}] {number}/{len(keys)} {cell.line()}", flush=True)


def missing(
    specimens: Sequence[Specimen], runtime: str, configs: Sequence[str] | None, kept: Path
) -> list[Key]:
    """Return the cells of `runtime` that are not kept yet, specimen by specimen: they share an export."""
    done = {cell.key for cell in read(kept)}
    wanted = [
        (specimen.name, runtime, config)
        for specimen in specimens
        for config in configs or configs_of(specimen, runtime)
    ]
    return [key for key in wanted if key not in done]


def configs_of(specimen: Specimen, runtime: str) -> Iterator[str]:
    """Yield what is tried for a specimen on a runtime."""
    for name in CONFIGS:
        everywhere = specimen.name in ZOO and runtime not in SLOW
        # Training gives the same float model to all runtimes.
        if name in FIRST or (everywhere and (name != "qat_int8" or runtime == "eager")):
            yield name


def read(kept: Path) -> list[SpecimenResult]:
    """Return the cells of the file `kept`; of one computed twice the later."""
    lines = kept.read_bytes().splitlines() if kept.exists() else []
    cells = [msgspec.json.decode(line, type=SpecimenResult) for line in lines]
    return list({cell.key: cell for cell in cells}.values())


def append(kept: Path, cell: SpecimenResult) -> None:
    """Add one line to the file `kept`."""
    with kept.open("ab") as file:
        file.write(msgspec.json.encode(cell) + b"\n")


if __name__ == "__main__":
    main()
