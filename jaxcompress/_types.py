# SPDX-License-Identifier: Apache-2.0
"""Types that every module shares."""

from typing import Any

# A nested container of arrays. Which one, and of which arrays, stands where it is taken.
PyTree = Any
