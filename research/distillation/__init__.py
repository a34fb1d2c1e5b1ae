# SPDX-License-Identifier: Apache-2.0
"""Distillation: each loss beside a student alone."""
