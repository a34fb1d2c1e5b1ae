# SPDX-License-Identifier: Apache-2.0
"""The network and its training in PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ._work import Layers, Predict, Trained, Work


def torch() -> Any:
    """PyTorch, which not even developers need to install."""
    return importlib.import_module("torch")


def network(layers: Layers) -> Any:
    """The network, without gradients of what it was made from."""
    nn = torch().nn
    made = []
    for kernel, bias in layers:
        layer = nn.Linear(*kernel.shape)
        layer.weight = nn.Parameter(torch().tensor(np.ascontiguousarray(kernel.T)))
        layer.bias = nn.Parameter(torch().tensor(bias))
        made += [layer, nn.ReLU()]
    return nn.Sequential(*made[:-1])


def predict(model: Any) -> Predict:
    """Logits of a model in evaluation mode."""

    def run(x: np.ndarray) -> np.ndarray:
        model.eval()
        with torch().no_grad():
            return model(torch().tensor(x)).numpy()

    return run


def trained(work: Work, model: Any) -> Trained:
    """A model that learns as ``in_jax`` does."""
    optim = torch().optim
    tx = optim.Adam(model.parameters(), work.rate)
    schedule = optim.lr_scheduler.CosineAnnealingLR(tx, work.steps)
    loss_of = torch().nn.functional.cross_entropy
    taken = 0

    def step(x: np.ndarray, y: np.ndarray) -> None:
        nonlocal taken
        model.train()
        loss = loss_of(model(torch().tensor(x)), torch().tensor(y).long())
        tx.zero_grad()
        loss.backward()
        tx.step()
        if (taken := taken + 1) <= work.steps:  # a cosine would rise again
            schedule.step()

    return Trained(step, predict(model))
