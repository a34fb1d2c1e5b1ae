# SPDX-License-Identifier: Apache-2.0
"""Errors that reach the person at the terminal as one line."""

from __future__ import annotations


class RunError(Exception):
    """A study cannot run, or cannot go on. The command exits with status 1."""


class UsageError(Exception):
    """An option has a value that no study takes. The command exits with status 2."""
