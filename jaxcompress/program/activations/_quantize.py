# SPDX-License-Identifier: Apache-2.0
"""Activation quantization: simulate integer operands, or values stored as integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from .._rewrite import check_names, check_state_is_dict, stacked
from ..trace._analyze import analyze
from ..trace._interpret import Interpreter
from ._boundaries import Point
from ._plan import Plan, make_plan
from ._quantizer import ActivationQuantizer, Policy


class QuantizedFunction(NamedTuple):
    """The modes of a function with quantized activations.

    Attributes:
      init: ``(params, *args) -> ranges``. Returns uncalibrated ranges, a dict by point.
        The arguments may be shapes.
      calibrate: ``(params, ranges, *args) -> (out, ranges)``. Observes ranges without
        rounding. ``out`` is the result of the function, from the same equations on the
        same values.
      train: ``(params, ranges, *args) -> (out, ranges)``. Observes, then rounds to the
        updated ranges.
      frozen: ``(params, ranges, *args) -> (out, ranges)``. Rounds to the given ranges and
        does not change them.
      points: ``(params, *args) -> {name: (Point, ActivationQuantizer)}``. Lists the
        quantized points and how each is quantized.
    """

    init: Callable[..., dict[str, Any]]
    calibrate: Callable[..., tuple[Any, dict[str, Any]]]
    train: Callable[..., tuple[Any, dict[str, Any]]]
    frozen: Callable[..., tuple[Any, dict[str, Any]]]
    points: Callable[..., dict[str, tuple[Point, ActivationQuantizer]]]


def quantize_activations(
    fn: Callable[..., Any],
    policy: Policy | None = None,
    *,
    inline_custom: bool = False,
) -> QuantizedFunction:
    """Quantize the activations of any function: what its products multiply.

    Use it for quantization-aware training, or to calibrate ranges after training. By
    default the quantized points are the operands of products that are data: inputs of
    layers, and both sides of QK^T and PV. This is what int8 products need. Everything
    between products stays float.

    A runtime without floats stores more. ``everywhere()`` quantizes these points:

    - the inputs and the outputs;
    - the result of each product, with the bias, batch norm and ReLU fused into it;
    - both sides and the result of residual sums;
    - inputs of products that were not stored before.

    Quantization is simulated: the function computes in floats and is not faster.
    ``execute`` multiplies integers.

    Weights are not quantized here; use a ``Compressor`` and pass its view as ``params``.
    All other arguments count as data, apart from two kinds that the program shows:

    - masks, which only ever meet scores as a bias of their softmax. They are not points,
      and neither are their sums with the scores, which are stored before;
    - the running statistics of a norm, which only ever meet data as a vector per channel,
      the same for the whole batch.

    Pass any other variables of the model in ``params``. The first axis of a result is
    assumed to be the batch. The ranges are an ordinary pytree; in ``train_step`` they are
    the ``model_state``. There is one range per layer in a scan over layers, and one for
    all trips of any other loop. All trips in one call count as one batch.

    Args:
      fn: ``(params, *args) -> out``; see ``sites``.
      policy: which points to quantize and how; see ``Policy``. None uses
        ``ActivationQuantizer()``, 8 asymmetric bits for the operands of products.
      inline_custom: also enter functions with custom derivative rules.

    Returns:
      The modes of the quantized function; see ``QuantizedFunction``.

    Raises:
      ValueError: in the modes, if a glob of the policy matches no point, if no activation
        is quantized, or if the ranges belong to another function.
      TypeError: in the modes, if ``policy`` is not a policy.

    Warns:
      OpaqueWarning: if parts of the function are not entered.
      ArgumentWarning: in the modes, if an argument that is quantized may be the state of a
        norm.
      RangeWarning: in the modes outside of ``jit``, if a range is so much wider than the
        typical values that they round to zero.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"w": jnp.eye(3)}
      >>> quantized = jc.quantize_activations(lambda params, x: x @ params["w"])
      >>> x = jnp.array([[0.0, 0.5, 255.0]])
      >>> ranges = quantized.init(params, x)
      >>> sorted(ranges)
      ['w/input']
      >>> _, ranges = jax.jit(quantized.calibrate)(params, ranges, x)
      >>> out, _ = jax.jit(quantized.frozen)(params, ranges, jnp.array([[3.2, -9, 999]]))
      >>> out.tolist()
      [[3.0, 0.0, 255.0]]

    References:
      Jacob et al., 2017, https://arxiv.org/abs/1712.05877
    """
    resolved_policy = ActivationQuantizer() if policy is None else policy

    def prepare(params: Any, args: tuple[Any, ...]) -> Plan:
        program = analyze(fn, params, args, inline_custom=inline_custom)
        return make_plan(program, resolved_policy)

    def init(params: Any, *args: Any) -> dict[str, Any]:
        plan = prepare(params, args)
        return {
            name: stacked(quantizer.init(name), point.layers)
            for name, (point, quantizer) in plan.points.items()
        }

    def mode(*, observe: bool, rounds: bool) -> Callable[..., Any]:
        def run(
            params: Any, ranges: dict[str, Any], *args: Any
        ) -> tuple[Any, dict[str, Any]]:
            check_state_is_dict(ranges)
            plan = prepare(params, args)
            plan.warn()
            check_names(ranges, plan.points, all_of=True)
            nodes, values = plan.hooks(observe=observe, rounds=rounds)
            leaves = jax.tree.leaves((params, args))
            run_hooked = Interpreter(plan.program, nodes, values)
            if not observe:
                out, new, _ = run_hooked(leaves, ranges)
                return out, new
            out, during, _ = run_hooked(leaves, plan.opened(ranges))
            return out, plan.closed(during)

        return run

    return QuantizedFunction(
        init=init,
        calibrate=mode(observe=True, rounds=False),
        train=mode(observe=True, rounds=True),
        frozen=mode(observe=False, rounds=True),
        points=lambda params, *args: prepare(params, args).points,
    )
