# SPDX-License-Identifier: Apache-2.0
"""On-policy distillation: a small language model corrected on what it writes itself."""
