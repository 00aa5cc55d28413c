"""What a quantization leaves of a model: the grids that were asked for, in float arithmetic, by no runtime.

The model runs as it is, without being traced: each operator of PyTorch is seen when it is dispatched, and
gets operands that are rounded to their grids. See `Simulation`.
"""

from quant_explorer.pipeline.building.simulation.simulation import Simulation

__all__ = ["Simulation"]
