# SPDX-License-Identifier: Apache-2.0
"""``python -m research.deep_compression``."""

import sys

from ._cli import main

if __name__ == "__main__":
    sys.exit(main())
