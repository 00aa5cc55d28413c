"""Which of the optional libraries are installed, found out without importing them."""

from __future__ import annotations

import importlib.metadata


def installed_version(package: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def explain_missing(extra: str, *packages: str) -> str | None:
    """Return which of `packages` are not installed and the extra that installs them, or None."""
    missing = [package for package in packages if installed_version(package) is None]
    if not missing:
        return None
    return f"{', '.join(missing)} not installed: pip install 'quant-explorer[{extra}]'"


def package_versions(*packages: str) -> dict[str, str]:
    """Return the version of each distribution, "none" where it is not installed."""
    return {package: installed_version(package) or "none" for package in packages}
