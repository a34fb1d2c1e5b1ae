# SPDX-License-Identifier: Apache-2.0
"""Logits and textbook softmaxes that the tests of losses share."""

import numpy as np
from draws import normal


def logits(seed, shape=(6, 5), size=3.0):
    return size * normal(*shape, seed=seed)


def softmax(x, temperature=1.0):
    x = np.asarray(x, np.float64) / temperature
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def divergence(p, q):
    return (p * (np.log(p) - np.log(q))).sum(-1)
