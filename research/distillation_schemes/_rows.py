# SPDX-License-Identifier: Apache-2.0
"""The rows that are one training, and the names of the others."""

from __future__ import annotations

import dataclasses

from ..students import KL, KL_ALONE, LABELS_ALONE, Row, kl

NOISE = Row(
    "kl, smooth noise", kl, "schemes", setting=KL, labels=False, views="smooth noise"
)
INVENTED = dataclasses.replace(NOISE, name="kl, invented")
ROWS = (LABELS_ALONE, KL_ALONE, NOISE)
ASSISTANT, ASSISTED = "assistant", "kl, by the assistant"


def generation(number: int) -> str:
    """Name of a born-again student."""
    return f"born again, {number}"
