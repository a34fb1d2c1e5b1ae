# SPDX-License-Identifier: Apache-2.0
"""A traced program as a graph, and an interpreter that runs it again with hooks."""

__all__ = []
