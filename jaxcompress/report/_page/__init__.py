# SPDX-License-Identifier: Apache-2.0
"""Records as one HTML page that needs no network, and as a picture."""

from ._page import html
from ._plot import plot
from ._sections import Section

__all__ = ["Section", "html", "plot"]
