"""The C++ compiler that Inductor calls, without importing PyTorch."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

# The macros by which a compiler says what it generates code for.
_INSTRUCTION_SET = re.compile(
    r"#define __(AVX\w*?|AMX\w*?|ARM_FEATURE_(?:DOTPROD|MATMUL_INT8|BF16|SVE2?))_* ", re.ASCII
)


def explain_missing_compiler() -> str | None:
    """Return how to get a compiler where there is none, or None."""
    compiler = _command()
    if shutil.which(compiler) is not None:
        return None
    return f"no C++ compiler {compiler!r}: install g++ (Debian: apt-get install g++) or set CXX to one"


def describe_compiler() -> str:
    """Return the compiler's name and version, "none" where it is not installed."""
    compiler = _command()
    return f"{Path(compiler).name} {_version(compiler)}"


@functools.cache
def compiled_features() -> tuple[str, ...]:
    """Return the vector instruction sets that code for this very CPU (`-march=native`) may use."""
    compiler = _command()
    if shutil.which(compiler) is None:
        return ()
    arguments = [compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    done = subprocess.run(arguments, capture_output=True, text=True)
    return tuple(sorted(set(_INSTRUCTION_SET.findall(done.stdout))))


def _command() -> str:
    return os.environ.get("CXX", "g++")


@functools.cache
def _version(compiler: str) -> str:
    if shutil.which(compiler) is None:
        return "none"
    done = subprocess.run([compiler, "-dumpfullversion", "-dumpversion"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
