# SPDX-License-Identifier: Apache-2.0
"""Provenance: which code, libraries and device made a number."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from .._version import __version__
from ._latency import describe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a number must come with to be believed, and repeated.

    Attributes:
      versions: of Python and of the libraries, by name.
      device: such as ``"cpu: cpu"``.
      commit: of the project, with ``-dirty`` where files have changed since; None
        outside a git repository.
      transforms: what was done to the model, in order, in words.
    """

    versions: Mapping[str, str]
    device: str
    commit: str | None
    transforms: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "transforms", tuple(self.transforms))


def provenance(
    transforms: Sequence[str] = (), *, repository: str | Path = "."
) -> Provenance:
    """Collect the provenance of numbers that are measured here and now.

    Args:
      transforms: what was done to the model, in order, in words.
      repository: a folder in the git repository whose commit to name.

    Example:
      >>> provenance(["prune 90 %", "4 bits"]).transforms
      ('prune 90 %', '4 bits')
    """
    if isinstance(transforms, str):
        raise TypeError(f"transforms={transforms!r} is one text; pass a list of texts.")
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
    )


def _commit(repository: str | Path) -> str | None:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout.strip()

    try:
        dirty = "-dirty" if git("status", "--porcelain") else ""
        return git("rev-parse", "HEAD") + dirty
    except (OSError, subprocess.SubprocessError):
        return None
