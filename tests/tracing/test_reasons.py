"""What a library says becomes part of a sentence only where it is for a person."""

from __future__ import annotations

import pytest

from quant_explorer.tracing.reasons import in_brackets, is_dump


@pytest.mark.parametrize(
    ("reason", "dump"),
    [
        ("XNNPACK has no BF16 convolutions; ask for fp16 or int8", False),
        ("the model cannot be exported (StopIteration: )\nTraceback", True),
        ("quantized::linear (/src/ATen/native/quantized/cpu/qlinear.cpp:12)", True),
        ("KeyError: 'add_1'", True),
    ],
)
def test_a_librarys_own_words_are_no_reason(reason: str, dump: bool) -> None:
    assert is_dump(reason) == dump


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the norm must have affine set to True\nstack", " (the norm must have affine set to True)"),
        (
            "Error when translating node %c : [target=torch.ops.aten.conv2d.default](args = (%v,)).",
            " (aten.conv2d)",
        ),
        (
            "Could not run 'aten::upsample_bicubic2d.out' from the 'QuantizedCPU' backend. " + "x" * 200,
            " (aten::upsample_bicubic2d)",
        ),
        ("'add_1'", ""),
        ("", ""),
    ],
)
def test_a_first_line_is_quoted_where_it_is_a_sentence(text: str, expected: str) -> None:
    assert in_brackets(RuntimeError(text)) == expected
