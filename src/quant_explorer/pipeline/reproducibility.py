"""What it takes to do a sweep again: command, source, machine, packages, data, configuration."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import quant_explorer
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.host.packages import installed_distributions
from quant_explorer.core.settings.plan import Reproducibility, SweepPlan


def describe_reproducibility(
    command: Sequence[str], environment: Environment, data_digests: Sequence[str], plan: SweepPlan
) -> Reproducibility:
    """Gather everything; there is no commit where quant-explorer was installed without its history."""
    commit, dirty = source_state(Path(quant_explorer.__file__).parent)
    return Reproducibility(
        command=tuple(command),
        quant_explorer=quant_explorer.__version__,
        git_commit=commit,
        git_dirty=dirty,
        environment=environment,
        seeds=plan.seeds,
        data_digests=tuple(data_digests),
        configuration=plan.configuration,
        packages=installed_distributions(),
    )


def source_state(folder: Path) -> tuple[str | None, bool | None]:
    """Return the commit that `folder` is checked out at and whether files differ from it, or None, None.

    A folder that git ignores (an environment inside of somebody's repository) has no commit of its own.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    if commit is None or tracked is None:
        return None, None
    return commit, bool(_git(folder, "status", "--porcelain"))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
