"""Which of the optional libraries are installed, found out without importing them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageMetadata

import quant_explorer


def own_version() -> dict[str, str]:
    """Return the version of this package by its name, as the libraries' are kept."""
    return {"quant-explorer": quant_explorer.__version__}


def installed_version(package: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    found = _described(importlib.metadata.distributions(name=package))
    return next((version for _, version in found), None)


def installed_distributions() -> dict[str, str]:
    """Return the version of everything that is installed, by name in alphabetical order."""
    # Of several with one name the first on the path is what Python imports.
    found = dict(reversed(list(_described(importlib.metadata.distributions()))))
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def explain_missing(extra: str, *packages: str) -> str | None:
    """Return which of `packages` are not installed and the extra that installs them, or None."""
    missing = [package for package in packages if installed_version(package) is None]
    if not missing:
        return None
    return f"{', '.join(missing)} not installed: pip install 'quant-explorer[{extra}]'"


def package_versions(*packages: str) -> dict[str, str]:
    """Return the version of each distribution, "none" where it is not installed."""
    return {package: installed_version(package) or "none" for package in packages}


def _described(distributions: Iterable[Distribution]) -> Iterator[tuple[str, str]]:
    """Yield name and version of each; an interrupted installation leaves folders that say neither."""
    for distribution in distributions:
        # For such a folder newer versions of Python give None; the package importlib_metadata, which takes
        # the place of Python's own search once it is imported, raises a kind of FileNotFoundError.
        try:
            metadata: PackageMetadata | None = distribution.metadata
        except FileNotFoundError:
            continue
        if metadata and "Name" in metadata and "Version" in metadata:
            yield metadata["Name"], metadata["Version"]
