"""What Linux says of processors."""

SAPPHIRE = """processor	: 0
model name	: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags		: fpu sse4_2 avx f16c avx2 avx512f avx512bw avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8
vmx flags	: vnmi avx512_fp16

processor	: 1
model name	: another
"""
GRAVITON = """processor	: 0
BogoMIPS	: 2100.00
Features	: fp asimd evtstrm asimdhp asimddp sve i8mm bf16
"""
OLD = "processor : 0\nmodel name : Old\nflags : fpu sse2\n"
