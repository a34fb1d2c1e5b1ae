# SPDX-License-Identifier: Apache-2.0
"""Peak memory: what the compiled program of a function needs at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Peak memory of one call.

    Attributes:
      peak_bytes: bytes that are needed at once.
      method: how they were found, such as ``"compiler's plan"``.
    """

    peak_bytes: int
    method: str

    def __str__(self) -> str:
        return f"{self.peak_bytes:,} bytes at the peak ({self.method})"


def memory(fn: Callable[..., Any], *args: Any) -> Memory:
    """Read the peak memory of a function from its compiled program.

    It is what XLA reserves: arguments, results and temporary buffers, without those that
    share memory. The function is compiled, not run.

    Args:
      fn: function, jitted unless it already is.
      *args: its arguments; shapes are enough.

    Raises:
      NotImplementedError: if the compiler of the device does not tell.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcompress import report
      >>> report.memory(lambda x: x + 1, jnp.ones((256, 4))).peak_bytes >= 2 * 4096
      True
    """
    jitted: Any = fn if hasattr(fn, "lower") else jax.jit(fn)
    plan = jitted.lower(*args).compile().memory_analysis()
    if plan is None:
        raise NotImplementedError(
            f"the compiler for {jax.devices()[0].platform} does not tell what memory a "
            "program needs. Leave memory= out of the record."
        )
    needed = (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        + plan.temp_size_in_bytes
        - plan.alias_size_in_bytes
    )
    return Memory(peak_bytes=int(needed), method="compiler's plan")
