# SPDX-License-Identifier: Apache-2.0
"""Energy of a call: read from a hardware counter, or unavailable with its reason."""

from __future__ import annotations

import dataclasses

from ._text import joules_text

_METHODS = ("counter", "unavailable")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy of one call, with the method that measured it.

    Estimates are not accepted here: ``energy_model`` has a type and columns of its own.

    Attributes:
      method: ``"counter"`` (the difference of a hardware energy counter, idle power
        subtracted) or ``"unavailable"``.
      source: the counter, such as ``"NVML, GPU 0"``, or why there is none.
      joules: mean over the windows, without what the idle device takes; None if
        unavailable.
      spread: sample standard deviation over the windows.
      windows: number of measured windows.
      window_seconds: the shortest window.
      idle_watts: power of the idle device, which was subtracted.

    Raises:
      ValueError: for an unknown method, joules without a counter, or the reverse.

    Example:
      >>> print(Energy(method="unavailable", source="no counter on this machine"))
      unavailable (no counter on this machine)
    """

    method: str = "unavailable"
    source: str = "not measured"
    joules: float | None = None
    spread: float | None = None
    windows: int = 0
    window_seconds: float | None = None
    idle_watts: float | None = None

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise ValueError(
                f"energy method must be one of {_METHODS}, got {self.method!r}. An "
                "estimate belongs in energy_model."
            )
        measured = (self.joules, self.spread, self.window_seconds, self.idle_watts)
        is_measured = self.method == "counter"
        if any((part is not None) != is_measured for part in measured):
            raise ValueError(
                "joules, spread, window_seconds and idle_watts must be given if and only "
                f"if the method is 'counter', got {self.method!r} and {measured}."
            )

    def __str__(self) -> str:
        if self.joules is None or self.spread is None:
            return f"unavailable ({self.source})"
        return (
            f"{joules_text(self.joules)} ± {joules_text(self.spread)} a call "
            f"({self.source}; {self.windows} windows of {self.window_seconds:.1f} s or "
            f"more; idle power of {self.idle_watts:.1f} W subtracted)"
        )
