# SPDX-License-Identifier: Apache-2.0
"""Structured pruning beside Torch-Pruning: the same network, weights and budget.

A ResNet-20 trains on Fashion-MNIST and is copied to PyTorch. Both libraries score channels
by the root mean square of their weights, relative to the mean of their group, across the
whole network, and prune to the same multiply-accumulates. Then both are trained for the
same steps on the same batches, each in its own framework. At last, both prune attention
whose heads share keys and values. Where Torch-Pruning is not installed, ours runs alone:

    pip install torch torch-pruning
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcompress as jc
from research import data

from . import _harness, _torch_twins

RATES = (1e-2, 1e-3)  # of the dense network, and after pruning


@dataclasses.dataclass(frozen=True)
class _Task:
    """The dense network, trained, and what it is trained on."""

    model: _torch_twins.ResNet
    variables: Any
    train: data.Split
    test: data.Split
    settings: argparse.Namespace

    def evaluate(self, variables: Any, x: Any) -> jax.Array:
        return self.model.apply(variables, x)  # pyright: ignore[reportReturnType]

    def learn(self, variables: Any, x: Any) -> Any:
        return self.model.apply(variables, x, train=True, mutable=["batch_stats"])

    def batches(self, steps: int, seed: int) -> Any:
        """Images and labels, the same for everyone."""
        draws = np.random.default_rng(seed)
        for _ in range(steps):
            rows = draws.integers(len(self.train.x), size=self.settings.batch)
            yield self.train.x[rows], self.train.y[rows]


@_harness.one_core()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("torch_pruning", __doc__, rounds=5)
    made.add_argument("--steps", type=int, default=400, help="of the dense network")
    made.add_argument("--more", type=int, default=200, help="steps after pruning")
    made.add_argument("--batch", type=int, default=64, help="images of a step")
    made.add_argument("--keep", type=float, default=0.5, help="of the MACs")
    settings = _harness.parse(made, argv)
    if not 0 < settings.keep < 1:
        made.error("--keep: between 0 and 1")
    if settings.quick:
        settings.steps, settings.more = 3, 2
    _harness.show(rows(settings), settings)


def rows(settings: argparse.Namespace) -> list[_harness.Row]:
    """Prune, train on and time, with the options of this benchmark."""
    task = _trained(settings)
    variants, extras = _ours(task)
    if all(map(importlib.util.find_spec, ("torch", "torch_pruning"))):
        their_variants, their_extras = _theirs(task)
        variants, extras = variants | their_variants, extras | their_extras
    else:
        missing = "torch and torch-pruning are not both installed: ours runs alone."
        print(f"{missing} pip install torch torch-pruning", file=sys.stderr)
    measured = _harness.measure(
        variants, rounds=settings.rounds, clock=time.process_time
    )
    return [
        dataclasses.replace(row, extra=extras.get(row.name, {})) for row in measured
    ]


def _trained(settings: argparse.Namespace) -> _Task:
    loaded = data.load("digits" if settings.quick else "fashion_mnist")
    widths, blocks = ((4, 8), 1) if settings.quick else ((16, 32, 64), 3)
    model = _torch_twins.ResNet(widths, blocks)
    first = model.init(jax.random.key(0), jnp.asarray(loaded.train.x[:1]))
    task = _Task(model, first, loaded.train, loaded.test, settings)
    trained = _fit(task, task.learn, first, settings.steps, RATES[0], 0)
    return dataclasses.replace(task, variables=trained)


def _fit(
    task: _Task,
    fn: Callable[..., Any],
    variables: Any,
    steps: int,
    rate: float,
    seed: int,
) -> Any:
    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))

    @jax.jit
    def step(params: Any, stats: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            logits, new = fn({"params": params, "batch_stats": stats}, x)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), new["batch_stats"]

        grads, stats = jax.grad(loss, has_aux=True)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), stats, state

    params, stats = variables["params"], variables["batch_stats"]
    state = tx.init(params)
    for x, y in task.batches(steps, seed):
        params, stats, state = step(params, stats, state, x, y)
    return {"params": params, "batch_stats": stats}


def _accuracy(task: _Task, fn: Callable[[Any], Any]) -> float:
    """Percent of right answers on the test split."""
    x, y = task.test.x, task.test.y
    chunks = [np.asarray(fn(x[i : i + 500])).argmax(-1) for i in range(0, len(x), 500)]
    return 100 * float((np.concatenate(chunks) == y).mean())


def _ours(task: _Task) -> tuple[dict[str, _harness.Variant], dict[str, dict[str, Any]]]:
    x, variables = jnp.asarray(task.train.x[:1]), task.variables
    budget = jc.structured.budgets.macs(task.settings.keep)

    def prune() -> Any:
        groups = jc.trace_axes(task.evaluate, variables, x)
        scores = jc.structured.scores.l2(groups, variables)
        plan = jc.structured.select(groups, scores, budget)
        return plan, jc.structured.slice_params(variables, plan)

    plan, small = prune()
    jc.structured.verify(task.evaluate, variables, plan, task.train.x[:16])
    fn = jc.shrink(task.evaluate, plan)
    settings = task.settings
    tuned = _fit(task, jc.shrink(task.learn, plan), small, settings.more, RATES[1], 1)
    extra = {
        "MACs": jc.count(fn, small, x).macs,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(small["params"])),
        "pruned %": _accuracy(task, jax.tree_util.Partial(jax.jit(fn), small)),
        "tuned %": _accuracy(task, jax.tree_util.Partial(jax.jit(fn), tuned)),
        "shared heads": _our_attention(),
    }
    dense = {
        "MACs": jc.count(task.evaluate, variables, x).macs,
        "parameters": sum(w.size for w in jax.tree.leaves(variables["params"])),
        "pruned %": _accuracy(
            task, jax.tree_util.Partial(jax.jit(task.evaluate), variables)
        ),
    }
    variants: dict[str, _harness.Variant] = {
        "trace_axes": lambda: jc.trace_axes(task.evaluate, variables, x).parameters(),
        "trace, select, slice": lambda: prune()[1],
    }
    return variants, {"trace_axes": dense, "trace, select, slice": extra}


def _our_attention() -> str:
    params, fn = _torch_twins.attention_params(), _torch_twins.attention
    x = jax.random.normal(jax.random.key(1), (2, 5, 16))
    groups = jc.trace_axes(fn, params, x)
    masks = {n: np.arange(g.size) < g.size // 2 for n, g in groups.prunable.items()}
    jc.structured.verify(fn, params, groups.plan(masks), x)
    return (
        f"exact: {', '.join(sorted({g.role for g in groups.prunable.values()} - {''}))}"
    )


def _theirs(
    task: _Task,
) -> tuple[dict[str, _harness.Variant], dict[str, dict[str, Any]]]:
    torch = importlib.import_module("torch")
    peer = importlib.import_module("torch_pruning")
    torch.set_num_threads(os.cpu_count() or 1)
    dense = _torch_twins.resnet_in_torch(task.model, task.variables).eval()
    images = np.ascontiguousarray(task.train.x[:16].transpose(0, 3, 1, 2))
    with torch.no_grad():
        logits = dense(torch.tensor(images)).numpy()
    wanted = task.evaluate(task.variables, task.train.x[:16])
    np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-3)
    x = torch.tensor(images[:1])
    limit = task.settings.keep * _macs(torch, dense, x)

    def analyze() -> None:
        peer.DependencyGraph().build_dependency(copy.deepcopy(dense), x)

    def pruner(model: Any, ratio: float, steps: int) -> Any:
        return peer.pruner.BasePruner(
            model,
            x,
            importance=peer.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=ratio,
            iterative_steps=steps,
            ignored_layers=[model.last],
        )

    def prune() -> tuple[Any, int]:
        model, taken = copy.deepcopy(dense), 0
        found = pruner(model, 0.9, 50)
        while _macs(torch, model, x) > limit:
            found.step()
            taken += 1
        return model, taken

    model, taken = prune()

    def predict(x: Any) -> Any:
        with torch.no_grad():
            return model(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()

    extra = {
        "MACs": _macs(torch, model, x),
        "parameters": sum(p.numel() for p in model.parameters()),
        "pruned %": _accuracy(task, predict),
    }
    _fit_in_torch(torch, task, model)
    torch.set_num_threads(1)  # One image gives a second thread nothing but waiting.
    extra |= {
        "tuned %": _accuracy(task, predict),
        "shared heads": _their_attention(torch, peer),
    }
    variants: dict[str, _harness.Variant] = {
        "Torch-Pruning: dependency graph": analyze,
        # As if it were known which fraction of the channels the budget takes.
        "Torch-Pruning: one step": lambda: pruner(
            copy.deepcopy(dense), 0.9 * taken / 50, 1
        ).step(),
        "Torch-Pruning: until the budget": lambda: prune() and None,
    }
    return variants, {"Torch-Pruning: until the budget": extra}


def _macs(torch: Any, model: Any, x: Any) -> int:
    """Multiply-accumulates of convolutions and dense layers for one image."""
    total, hooks = 0, []

    def add(layer: Any, _: Any, out: Any) -> None:
        nonlocal total
        total += out.numel() * layer.weight[0].numel()

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            hooks.append(layer.register_forward_hook(add))
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return total


def _fit_in_torch(torch: Any, task: _Task, model: Any) -> None:
    steps = task.settings.more
    tx = torch.optim.Adam(model.parameters(), RATES[1])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(tx, steps)
    model.train()
    for x, y in task.batches(steps, 1):
        logits = model(torch.tensor(x.transpose(0, 3, 1, 2)))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(y).long())
        tx.zero_grad()
        loss.backward()
        tx.step()
        schedule.step()
    model.eval()


def _their_attention(torch: Any, peer: Any) -> str:
    """Prune half of everything, without hints and with the number of heads."""
    params = _torch_twins.attention_params()
    x = torch.ones(2, 5, 16)
    found = []
    for hints in (False, True):
        model = _torch_twins.attention_in_torch(params)
        heads = {
            model.q: _torch_twins.HEADS,
            model.k: _torch_twins.SHARED,
            model.v: _torch_twins.SHARED,
        }
        peer.pruner.BasePruner(
            model,
            x,
            importance=peer.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=[model.out],
            num_heads=heads if hints else {},
        ).step()
        left = sum(layer.out_features for layer in (model.q, model.k, model.v))
        whole = sum(params[name].shape[1] for name in "qkv")
        try:
            model(x)
            text = f"runs, {left} of {whole} features left"
        except RuntimeError:
            text = "does not run"
        found.append(f"{'with num_heads' if hints else 'no hints'}: {text}")
    return "; ".join(found)


if __name__ == "__main__":
    main()
