# SPDX-License-Identifier: Apache-2.0
"""Names of the records, which recipes give and tables ask for."""

from __future__ import annotations

DENSE, CONV, RESNET = "LeNet-300-100", "conv net", "ResNet-8"
NETWORKS = (DENSE, CONV, RESNET)
PRUNED = "90 % of the weights pruned"
LONGER = "trained on as long"  # as what is compressed after training
SMALL = "pruned, 4 bits"
NARROW = "filters removed"
CHANNELS = "channels removed"
FOUR = "4 bits"
HALF = "half width, distilled"
INT8 = "filters removed, int8"
SPARSITIES = (50, 91, 95)
THRESHOLDS = (0.2, 0.3)
TRAINED_BITS = (4, 2)
ROUNDED_BITS = (16, 8)
JAX = "JAX"
RUNTIMES = {"LiteRT": ".tflite", "ONNX Runtime": ".onnx"}
FEW, ALL = "3 % of the labels", "all labels"


def of(network: str, variant: str = "", runtime: str = "") -> str:
    """Name a network, what was done to it, and where it runs."""
    name = f"{network}: {variant}" if variant else network
    return f"{name} ({runtime})" if runtime else name


def pruned(percent: int) -> str:
    """Name a variant by the share of its weights that is pruned."""
    return f"{percent} % pruned"


def trained(bits: int) -> str:
    """Name a variant whose weights were trained with few bits."""
    return f"{bits} bits, trained"


def ternary(threshold: float) -> str:
    """Name a variant with three values, by the share of the range that is zero."""
    return f"ternary, zero below {threshold:g} of the largest"


def rounded(bits: int) -> str:
    """Name a variant whose weights were rounded after training."""
    return f"{bits} bits, rounded"


def student(labels: str, *, taught: bool) -> str:
    """Name a student."""
    return f"student of the {CONV}, {labels}: {'taught' if taught else 'alone'}"
