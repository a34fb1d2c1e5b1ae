# SPDX-License-Identifier: Apache-2.0
"""Distillation schemes: born-again students, an assistant, and no images at all."""
