# SPDX-License-Identifier: Apache-2.0
"""Prune, quantize and distill in one step, in stages, and each alone; temperatures."""
