# SPDX-License-Identifier: Apache-2.0
"""Prune, quantize, distill, entropy-code and reload a network trained on real data."""
