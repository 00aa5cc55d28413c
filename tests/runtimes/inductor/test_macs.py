"""Lines that oneDNN wrote, and the multiply-accumulates in them counted by hand."""

import os

import numpy as np
import pytest
import torch
from torch import nn

from quant_explorer.core.contracts import Batch
from quant_explorer.runtimes.inductor import macs as onednn_macs

HEAD = "onednn_verbose,v1,primitive,exec,cpu,"
ATTRIBUTES = "attr-scratchpad:user"


def line(primitive: str, memory: str, problem: str) -> str:
    return f"{HEAD}{primitive},brg:avx512_core,forward_inference,{memory},{ATTRIBUTES},,{problem},0.06"


U8S8 = (
    "src:u8::blocked:acdb::f0 wei:s8:a:blocked:AcdB32a4b::f0 bia:f32:a:blocked:a::f0 dst:u8::blocked:acdb::f0"
)
F32 = "src:f32::blocked:acdb::f0 wei:f32:a:blocked:Acdb32a::f0 dst:f32::blocked:acdb::f0"
BF16 = "src:bf16::blocked:acdb::f0 wei:bf16:a:blocked:Acdb32a::f0 dst:bf16::blocked:acdb::f0"
# Weights alone in INT8, and the notation of oneDNN before 3.1.
F32S8 = "src:f32::blocked:ab::f0 wei:s8::blocked:ab::f0 dst:f32::blocked:ab::f0"
OLD = "src_u8::blocked:acdb:f0 wei_s8::blocked:AcdB32a4b:f0 dst_u8::blocked:acdb:f0"

COUNTED = {
    "convolution": (
        line("convolution", U8S8, "mb2_ic3oc32_ih32oh16kh3sh2dh0ph1_iw32ow16kw3sw2dw0pw1"),
        {"int8": 2 * 32 * 16 * 16 * 3 * 3 * 3},
    ),
    "grouped convolution": (
        line("convolution", F32, "mb1_g8ic16oc32_ih8oh8kh3sh1dh0ph1_iw8ow8kw5sw1dw0pw2"),
        {"fp32": 32 * 8 * 8 * 2 * 3 * 5},
    ),
    "convolution of one dimension": (
        line("convolution", BF16, "mb1_ic4oc6_iw10ow8kw3sw1dw0pw0"),
        {"bf16": 6 * 8 * 4 * 3},
    ),
    "deconvolution": (
        line("deconvolution", F32, "mb1_ic4oc6_ih5oh10kh2sh2dh0ph0_iw5ow10kw2sw2dw0pw0"),
        {"fp32": 4 * 5 * 5 * 6 * 2 * 2},
    ),
    "inner product": (line("inner_product", F32, "mb3ic128oc10"), {"fp32": 3 * 128 * 10}),
    "inner product of images": (line("inner_product", F32, "mb3ic8ih2iw2oc10"), {"fp32": 3 * 8 * 4 * 10}),
    "matrix product": (line("matmul", U8S8, "1x128:128x10"), {"int8": 1280}),
    "batched matrix product": (line("matmul", F32, "4x1x5x7:4x3x7x2"), {"fp32": 4 * 3 * 5 * 7 * 2}),
    "INT8 weights alone": (line("matmul", F32S8, "1x8:8x2"), {"fp32": 16}),
    "old notation": (
        line("convolution", OLD, "mb1_ic1oc1_ih2oh2kh1sh1dh0ph0_iw2ow2kw1sw1dw0pw0"),
        {"int8": 4},
    ),
    "layout changed": (line("reorder", "src:f32::blocked:ab::f0 dst:s8::blocked:ba::f0", "32x3x3x3"), {}),
    "only created": (line("convolution", U8S8, "mb1_ic1oc1").replace("exec", "create:cache_miss"), {}),
    "header": ("onednn_verbose,v1,info,cpu,runtime:OpenMP,nthr:1", {}),
    "printed by something else": ("exec,convolution", {}),
}


@pytest.mark.parametrize("case", COUNTED)
def test_counted_by_hand(case: str) -> None:
    text, expected = COUNTED[case]
    macs, kernels = onednn_macs.parse(f"a line before\n{text}\n")
    assert macs == expected
    assert kernels.total() == len(expected)


def test_what_onednn_does_not_log_is_float() -> None:
    """The convolution is oneDNN's; 100 more of the model are somebody else's."""
    convolution = nn.Conv2d(3, 8, 3, bias=False).eval()
    batch = np.zeros((2, 3, 10, 10), np.float32)

    def run(images: Batch) -> torch.Tensor:
        with torch.no_grad():
            result: torch.Tensor = convolution(torch.from_numpy(images))
        return result

    own = 8 * 8 * 8 * 27
    executed = onednn_macs.count_macs(run, batch, total=own + 100, precision="fp16")
    assert executed.macs == {"fp16": 100, "fp32": own}
    assert executed.kernels[onednn_macs.OTHERS] == 1
    assert onednn_macs.count_macs(run, batch, total=own, precision="fp16").macs == {"fp32": own}


def test_standard_output_is_given_back(capfd: pytest.CaptureFixture[str]) -> None:
    def run(images: Batch) -> None:
        os.write(1, b"kept from the caller\n")
        raise InterruptedError

    with pytest.raises(InterruptedError):
        onednn_macs.count_macs(run, np.zeros((1, 1), np.float32), total=0, precision="fp32")
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "after\n"
