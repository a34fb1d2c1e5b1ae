# SPDX-License-Identifier: Apache-2.0
"""Parameters of a test of which some run with ``-m slow`` only."""

import pytest


def marked(names, slow):
    """The names as parameters; those in ``slow`` get the marker."""
    assert set(slow) <= set(names), f"not a parameter: {set(slow) - set(names)}"
    return [
        pytest.param(name, marks=pytest.mark.slow if name in slow else ())
        for name in names
    ]
