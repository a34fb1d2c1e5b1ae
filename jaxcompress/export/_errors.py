# SPDX-License-Identifier: Apache-2.0
"""Errors of exporters. Each is raised before a file is written."""

from __future__ import annotations


class ExportError(ValueError):
    """A function cannot be exported as it is."""


class UnsupportedOperation(ExportError):
    """The runtime, or its exporter, does not have an operation of the function."""


class Mismatch(ExportError):
    """The runtime computes something else than the simulation."""
