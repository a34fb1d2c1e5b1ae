# SPDX-License-Identifier: Apache-2.0
"""``python -m research.joint_compression``."""

import sys

from ._study import main

if __name__ == "__main__":
    sys.exit(main())
