import sys
from pathlib import Path

import numpy as np
import pytest

from quant_explorer.core.host.packages import (
    explain_missing,
    installed_distributions,
    installed_version,
    package_versions,
)

ABSENT = "no-such-package-at-all"


def test_a_version_is_that_of_the_library() -> None:
    assert installed_version("numpy") == np.__version__
    assert installed_version(ABSENT) is None


@pytest.mark.parametrize(
    ("packages", "reason"),
    [
        ((), None),
        (("numpy", "scipy"), None),
        ((ABSENT,), f"{ABSENT} not installed: pip install 'quant-explorer[fast]'"),
        (
            ("numpy", ABSENT, "nor-this"),
            f"{ABSENT}, nor-this not installed: pip install 'quant-explorer[fast]'",
        ),
    ],
)
def test_what_is_missing_is_named_with_the_extra_that_brings_it(
    packages: tuple[str, ...], reason: str | None
) -> None:
    assert explain_missing("fast", *packages) == reason


def test_versions_name_what_is_not_installed_too() -> None:
    """A digest then differs from one that was made with it."""
    assert package_versions("numpy", ABSENT) == {"numpy": np.__version__, ABSENT: "none"}


def test_a_folder_without_metadata_is_no_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted installation leaves one, beside or before the one that works."""
    for name in ("numpy-1.0", "leftover-1.0"):
        (tmp_path / f"{name}.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_version("leftover") is None
    assert installed_version("numpy") == np.__version__
    everything = installed_distributions()
    assert everything["numpy"] == np.__version__
    assert "leftover" not in everything
    assert list(everything) == sorted(everything, key=str.lower)


def test_nothing_is_imported_to_find_out() -> None:
    known = set(sys.modules)
    assert explain_missing("dev", "hypothesis", "mypy") is None
    assert "mypy" not in set(sys.modules) - known
