# SPDX-License-Identifier: Apache-2.0
"""The command line: ``python -m jaxcompress --help``."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main())
