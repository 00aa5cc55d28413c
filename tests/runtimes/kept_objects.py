"""A `g++` that keeps the wrappers it has compiled: tests lower the same model again, for 10 s each."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LAUNCHER = """#!{python}
import hashlib, os, shutil, subprocess, sys
arguments = sys.argv[1:]
sources = [one for one in arguments if one.endswith(".wrapper.cpp")]
if not sources or "-c" not in arguments:
    os.execv({compiler!r}, [{compiler!r}, *arguments])
output = arguments[arguments.index("-o") + 1]
rest = [one for one in arguments if one not in (sources[0], output)]
digest = hashlib.sha256(open(sources[0], "rb").read() + repr(rest).encode()).hexdigest()
kept = os.path.join({folder!r}, digest)
if not os.path.exists(kept):
    code = subprocess.call([{compiler!r}, *arguments])
    if code:
        sys.exit(code)
    shutil.copyfile(output, kept)
shutil.copyfile(kept, output)
"""


@contextmanager
def kept_objects(folder: Path) -> Iterator[None]:
    """Put a `g++` first in PATH that copies an object of the same source and options from `folder`."""
    compiler = shutil.which("g++")
    if compiler is None:
        yield
        return
    launcher = folder / "g++"
    launcher.write_text(LAUNCHER.format(python=sys.executable, compiler=compiler, folder=str(folder)))
    launcher.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        yield
