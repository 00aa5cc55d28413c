"""Which images two variants got right, counted for all pairs at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quant_explorer.analysis.evidence import Evidence
from quant_explorer.report.page.content import Pairs
from quant_explorer.report.page.rounds import encode


def encode_pairs(evidence: Evidence, digests: Sequence[str]) -> Pairs:
    """Count for each pair of the variants, by the images of the baseline's split that both were scored on."""
    hits = {
        digest: evidence.hits[digest]
        for digest in digests
        if digest in evidence.hits and evidence.same_split(digest)
    }
    images = max((int(some.positions.max()) + 1 for some in hits.values()), default=0)
    # Whole numbers up to 2**24 are exact in it.
    right, wrong = np.zeros((2, len(digests), images), np.float32)
    for row, digest in enumerate(digests):
        if digest in hits:
            right[row, hits[digest].positions] = hits[digest].right
            wrong[row, hits[digest].positions] = ~hits[digest].right
    seen = right + wrong
    return Pairs(encode(right @ wrong.T), encode(seen @ seen.T))
