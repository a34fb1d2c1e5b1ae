# SPDX-License-Identifier: Apache-2.0
"""Structured pruning: channels and blocks of a residual network, and what they cost."""
