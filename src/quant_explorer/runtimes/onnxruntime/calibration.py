"""The calibration images as ONNX Runtime's quantizer reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quant_explorer.core.contracts import Batch
from quant_explorer.tracing.onnx_program import INPUT_NAME

# The quantizer keeps every activation of a step until their histograms are made.
IMAGES_A_STEP = 4


class CalibrationImages:
    """An `onnxruntime.quantization.CalibrationDataReader` whose items are a few images each."""

    def __init__(self, calibration: Sequence[Batch]) -> None:
        """Hold batches of images (n, channels, height, width)."""
        self._steps = [
            batch[start : start + IMAGES_A_STEP]
            for batch in calibration
            for start in range(0, len(batch), IMAGES_A_STEP)
        ]
        self._left: Iterator[Batch] = iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Hand out only the items from `start_index` to before `end_index`."""
        self._left = iter(self._steps[start_index:end_index])

    def get_next(self) -> dict[str, Batch] | None:
        """Return the next item as the session's inputs, or None."""
        step = next(self._left, None)
        return None if step is None else {INPUT_NAME: step}
