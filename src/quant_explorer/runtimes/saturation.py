"""What this kind of CPU means for sums of 8-bit products, whichever library multiplies.

On x86-64 without VNNI a kernel adds two products of an unsigned and a signed byte in 16 bits
(`vpmaddubsw`), which overflows at full range. Source: oneDNN, "Nuances of int8 computations",
https://uxlfoundation.github.io/oneDNN/dev_guide_int8_computations.html.
"""

from __future__ import annotations

from quant_explorer.core.host.architecture import is_x86

# Of a note that says why a range is reduced.
FOR_ANY_CPU = "with which no x86-64 CPU overflows (target portable)"


def exact_by(*, saturates: bool) -> tuple[str, ...]:
    """Return the features that full-range 8-bit kernels of a library are exact by, given what they do here.

    Only for a library whose kernels do overflow on an x86-64 CPU without VNNI.
    """
    return ("VNNI",) if is_x86() and not saturates else ()
