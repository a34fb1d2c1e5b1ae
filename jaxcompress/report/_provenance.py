# SPDX-License-Identifier: Apache-2.0
"""Provenance: the code, libraries and device that produced a number."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from .._version import __version__
from ._latency import describe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """The versions, device and commit needed to reproduce a measurement.

    Attributes:
      versions: versions of Python and of the libraries, by name.
      device: device, such as ``"cpu: cpu"``.
      commit: git commit of the project, with ``-dirty`` if files have changed since; None
        outside a git repository.
      transforms: descriptions of what was done to the model, in order.
      command: the command line of the process; None if it is not known.
    """

    versions: Mapping[str, str]
    device: str
    commit: str | None
    transforms: Sequence[str] = ()
    command: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "transforms", tuple(self.transforms))


def provenance(
    transforms: Sequence[str] = (), *, repository: str | Path = "."
) -> Provenance:
    """Record the versions, device, git commit and command, to attach to a measurement.

    Args:
      transforms: descriptions of what was done to the model, in order.
      repository: folder inside the git repository whose commit is recorded.

    Raises:
      TypeError: if ``transforms`` is a single string.

    Example:
      >>> provenance(["prune 90 %", "4 bits"]).transforms
      ('prune 90 %', '4 bits')
    """
    if isinstance(transforms, str):
        raise TypeError(
            f"transforms must be a list of strings, got {transforms!r}. Pass "
            f"[{transforms!r}]."
        )
    names = ("jax", "jaxlib", "flax", "optax", "numpy")
    return Provenance(
        versions={
            "python": platform.python_version(),
            "jaxcompress": __version__,
            **{name: importlib.metadata.version(name) for name in names},
        },
        device=describe(jax.devices()[0]),
        commit=_commit(repository),
        transforms=transforms,
        command=shlex.join(sys.orig_argv) if sys.orig_argv else None,
    )


def _commit(repository: str | Path) -> str | None:
    def git(*arguments: str) -> str:
        result = subprocess.run(
            ["git", "-C", str(repository), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return result.stdout.strip()

    try:
        dirty = "-dirty" if git("status", "--porcelain") else ""
        return git("rev-parse", "HEAD") + dirty
    except (OSError, subprocess.SubprocessError):
        return None
