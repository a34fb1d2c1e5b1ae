# SPDX-License-Identifier: Apache-2.0
"""How few bits: rounding and training at 16 to 1 bits, scales, binary and ternary nets."""
