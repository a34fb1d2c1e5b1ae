# SPDX-License-Identifier: Apache-2.0
"""Sparse from the start, or pruned on the way: RigL, SET, static masks, magnitudes."""
