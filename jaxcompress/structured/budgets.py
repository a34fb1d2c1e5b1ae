# SPDX-License-Identifier: Apache-2.0
"""Budgets: when enough channels are pruned."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .._arguments import check_function
from ._groups import Groups
from ._plan import Plan

__all__ = ["Budget", "bytes_", "channels", "latency", "macs", "parameters"]

Masks = Mapping[str, np.ndarray]
Budget = Callable[[Groups, Masks], tuple[float, float]]
"""``(groups, masks) -> (cost, limit)``. Pruning goes on until the cost is in the limit."""


def _check(fraction: float, name: str) -> None:
    if not 0 < fraction <= 1:
        raise ValueError(
            f"{name} takes the fraction to keep, in (0, 1], got {fraction}"
        )


def channels(fraction: float) -> Budget:
    """Keep this fraction of all prunable channels."""
    _check(fraction, "channels")

    def budget(groups: Groups, masks: Masks) -> tuple[float, float]:
        total = sum(group.size for group in groups.prunable.values())
        removed = sum(int((~mask).sum()) for mask in masks.values())
        return total - removed, fraction * total

    return budget


def parameters(fraction: float) -> Budget:
    """Keep this fraction of the parameters."""
    _check(fraction, "parameters")
    return lambda groups, masks: (
        groups.parameters(masks),
        fraction * groups.parameters(),
    )


def macs(fraction: float) -> Budget:
    """Keep this fraction of the multiply-accumulates of the traced call."""
    _check(fraction, "macs")
    return lambda groups, masks: (groups.macs(masks), fraction * groups.macs())


def bytes_(limit: float, *, per_parameter: float = 4.0) -> Budget:
    """Keep the parameters within a number of bytes.

    Args:
      limit: bytes.
      per_parameter: bytes of one parameter: 4.0 for float32, 0.5 for 4-bit weights.
    """
    if limit <= 0 or per_parameter <= 0:
        raise ValueError(
            "bytes_ takes a positive limit and size, got "
            f"{limit} and per_parameter={per_parameter}"
        )
    return lambda groups, masks: (groups.parameters(masks) * per_parameter, limit)


def latency(measure: Callable[[Plan], float], limit: float) -> Budget:
    """Keep the measured latency within a limit.

    Each try compiles and times a network, so this takes about ten compilations.

    Args:
      measure: ``plan -> seconds``, which slices, compiles and times the network on the
        device that it is for.
      limit: seconds.

    Example:
      >>> import jax, jaxcompress as jc
      >>> def on_this_machine(fn, params, *args):
      ...     def measure(plan):
      ...         small = jc.structured.slice_params(params, plan)
      ...         run = jax.jit(jc.shrink(fn, plan))
      ...         return jc.report.latency(run, small, *args).median_seconds
      ...     return measure
    """
    check_function(measure, "latency(measure, limit)")
    if limit <= 0:
        raise ValueError(f"latency takes a positive limit in seconds, got {limit}")
    return lambda groups, masks: (measure(groups.plan(masks)), limit)
