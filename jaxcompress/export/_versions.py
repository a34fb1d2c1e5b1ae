# SPDX-License-Identifier: Apache-2.0
"""Check the packages of runtimes: installed, and of a version that was tested."""

from __future__ import annotations

import importlib.metadata


def require(package: str, version: str, extra: str) -> None:
    """Raise if a package is missing, or of another version than the tested one.

    Args:
      package: name on PyPI.
      version: what its version must begin with, such as ``"1.32"``; "" accepts any.
      extra: the extra of jaxcompress that installs it.

    Raises:
      ImportError: with the command that installs the right one.
    """
    fix = f"pip install 'jaxcompress[{extra}]'"
    try:
        installed = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"{package} is not installed: {fix}.") from None
    if version and not f"{installed}.".startswith(version.rstrip(".") + "."):
        raise ImportError(
            f"{package} must be version {version.rstrip('.')}, the one this exporter was "
            f"tested with, but {installed} is installed: {fix}."
        )
