# SPDX-License-Identifier: Apache-2.0
"""How many examples of a property are drawn."""

import hypothesis

_LONG = 25  # of the profile that continuous integration uses


def examples(number: int) -> hypothesis.settings:
    """Draw so many with the profile "long", and in proportion with others; three at least.

    Use it as a decorator of properties that need more or fewer examples than others.
    """
    drawn = round(number * hypothesis.settings().max_examples / _LONG)
    return hypothesis.settings(max_examples=max(3, drawn))
