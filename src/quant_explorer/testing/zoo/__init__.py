"""A conformance zoo: small models of one operator pattern each. Every runtime lowers them rightly or refuses.

    for specimen in ZOO.values():
        model, images = specimen.model(), specimen.images(8)

Models take float32 images (n, *shape) and give logits (n, classes); they are seeded, in evaluation mode, and
small: a lowering takes seconds. Patterns are those that public reports, and our own, found trouble with.
"""

from quant_explorer.core.registry import Registry
from quant_explorer.testing.zoo import (
    activations,
    arithmetic,
    attention,
    convolutions,
    normalizations,
    pooling,
    shapes,
    structure,
    tokens,
)
from quant_explorer.testing.zoo.specimen import Specimen

__all__ = ["ZOO", "Specimen"]

ZOO: Registry[Specimen] = Registry(
    "specimen",
    {
        specimen.name: specimen
        for family in (
            *(convolutions, activations, normalizations, attention, shapes, pooling, arithmetic),
            *(structure, tokens),
        )
        for specimen in family.SPECIMENS
    },
)
