# SPDX-License-Identifier: Apache-2.0
"""Schemes: who teaches whom, and on which inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._mesh import on_any_mesh
from .._select import paths_and_leaves

Params = Any
Train = Callable[[Params], Params]
Network = Callable[[Params, jax.Array], Any]


def generations(first: Params, trainings: Sequence[Train]) -> list[Params]:
    """Train networks one after another, each with the previous one as its teacher.

    Born-again networks repeat the same architecture. A teacher assistant is a network
    of intermediate size, trained before the student. The logits of all generations form
    an `ensemble`.

    Args:
      first: parameters of the first teacher.
      trainings: functions ``teacher's parameters -> trained parameters``, in order.

    Returns:
      ``[first, *trained]``.

    Raises:
      ValueError: if a network has a parameter that is not finite (names the parameter
        and the generation), since all later networks would learn from it.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> def train(teacher):  # stands in for real training
      ...     return {"w": teacher["w"] / 2}
      >>> networks = jc.distill.generations({"w": jnp.array(4.0)}, [train, train])
      >>> [float(params["w"]) for params in networks]
      [4.0, 2.0, 1.0]

    References:
      Furlanello et al., Born-again networks, 2018, https://arxiv.org/abs/1805.04770;
      Mirzadeh et al., Teacher assistant, 2020, https://arxiv.org/abs/1902.03393
    """
    networks = [first]
    _check_finite(first, 0)
    for number, train in enumerate(trainings, start=1):
        networks.append(train(networks[-1]))
        _check_finite(networks[-1], number)
    return networks


def same_view(
    student: Network,
    teacher: Network,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Callable[..., tuple[Any, Any]]:
    """Show student and teacher exactly the same augmented inputs (function matching).

    The augmentation is drawn once and both networks get the resulting array, so the
    teacher never sees another crop than the student.

    Args:
      student: ``(params, x) -> logits``, or whatever the loss takes.
      teacher: the same for the teacher.
      augment: ``(key, x) -> x``, such as `mixup`; None for no augmentation.

    Returns:
      ``(params, teacher_params, x, key=None) -> (student's output, teacher's output)``.
      No gradient reaches the teacher, neither its parameters nor through ``x``.

    Raises:
      ValueError: when called with an augmentation but without a key.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> def network(w, x):
      ...     return x @ w
      >>> ask = jc.distill.same_view(network, network, jc.distill.mixup)
      >>> w = jnp.eye(3)
      >>> ours, theirs = ask(w, w, jnp.ones((4, 3)), jax.random.key(0))
      >>> bool((ours == theirs).all())
      True

    References:
      Beyer et al., 2022, https://arxiv.org/abs/2106.05237
    """

    def ask(
        params: Params, teacher_params: Params, x: jax.Array, key: Any = None
    ) -> tuple[Any, Any]:
        if augment is not None:
            if key is None:
                raise ValueError(
                    "the augmentation needs key=, got None. Pass a PRNG key."
                )
            x = augment(key, x)
        answer = teacher(*lax.stop_gradient((teacher_params, x)))
        return student(params, x), lax.stop_gradient(answer)

    return ask


@on_any_mesh
def mixup(key: jax.Array, x: jax.Array) -> jax.Array:
    """Blend each example with another of its batch, by weights uniform in [0, 1].

    There are no labels to blend: the teacher labels the result.

    Args:
      key: a PRNG key.
      x: ``(batch, ...)``, floating point.

    Returns:
      Array like ``x``.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> x = jc.distill.mixup(jax.random.key(0), jnp.eye(4))
      >>> jnp.allclose(x.sum(-1), 1.0).item()
      True

    References:
      Zhang et al., 2018, https://arxiv.org/abs/1710.09412
    """
    order_key, share_key = jax.random.split(key)
    partner = x[jax.random.permutation(order_key, len(x))]
    shape = (len(x),) + (1,) * (x.ndim - 1)
    share = jax.random.uniform(share_key, shape, x.dtype)
    return share * x + (1 - share) * partner


def _check_finite(params: Params, number: int) -> None:
    for path, leaf in zip(*paths_and_leaves(params)[:2], strict=True):
        array = np.asarray(leaf)
        floating = jnp.issubdtype(array.dtype, jnp.floating)
        if floating and not np.isfinite(array.astype(np.float32)).all():
            raise ValueError(
                f"parameters must be finite, but {path!r} of generation {number} is not "
                "finite: that training diverged, and all later ones would learn from it."
            )
