# SPDX-License-Identifier: Apache-2.0
"""A graph of a traced program, and an interpreter that reruns it with hooks."""

__all__ = []
