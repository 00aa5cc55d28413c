"""A `g++` that keeps what it has compiled: tests lower the same model again, for 10 s each."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

# Comments in a source name the folder it lies in, which is another each time.
LAUNCHER = """#!{python}
import hashlib, os, shutil, subprocess, sys
arguments = sys.argv[1:]
sources = [argument for argument in arguments if argument.endswith((".wrapper.cpp", ".kernel.cpp"))]
if not sources or "-c" not in arguments:
    os.execv({compiler!r}, [{compiler!r}, *arguments])
output = arguments[arguments.index("-o") + 1]
rest = [argument for argument in arguments if argument not in (sources[0], output)]
code = [line for line in open(sources[0], "rb") if not line.startswith(b"//")]
kept = os.path.join({folder!r}, hashlib.sha256(b"".join(code) + repr(rest).encode()).hexdigest())
if not os.path.exists(kept):
    status = subprocess.call([{compiler!r}, *arguments])
    if status:
        sys.exit(status)
    # Another process may be about to keep the same.
    own = f"{{kept}}.{{os.getpid()}}"
    shutil.copyfile(output, own)
    shutil.copyfile(sources[0], f"{{kept}}.cpp")
    os.replace(own, kept)
shutil.copyfile(kept, output)
"""


@contextmanager
def kept_objects(shared: Path) -> Iterator[None]:
    """Put a `g++` first in PATH that copies an object of the same code and options from `shared`/objects.

    Each object's source lies beside it.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        yield
        return
    folder = shared / "objects"
    folder.mkdir(exist_ok=True)
    with TemporaryDirectory() as own, pytest.MonkeyPatch.context() as patch:
        launcher = Path(own) / "g++"
        launcher.write_text(LAUNCHER.format(python=sys.executable, compiler=compiler, folder=str(folder)))
        launcher.chmod(0o755)
        patch.setenv("PATH", f"{own}{os.pathsep}{os.environ['PATH']}")
        yield
