# SPDX-License-Identifier: Apache-2.0
"""Schemes: who teaches whom, and on what they are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._select import paths_and_leaves

Params = Any
Train = Callable[[Params], Params]
Network = Callable[[Params, jax.Array], Any]


def generations(first: Params, trainings: Sequence[Train]) -> list[Params]:
    """Train networks one after another, each with the one before as its teacher.

    Born-again networks train the same network so some times; a teacher assistant is a
    network of a size between, trained before the student. The logits of all generations
    make an `ensemble`.

    Args:
      first: parameters of the first teacher.
      trainings: functions ``teacher's parameters -> trained parameters``, in order.

    Returns:
      ``[first, *trained]``.

    Raises:
      ValueError: if a network comes back with a parameter that is not finite (naming
        which, of which generation), since all later ones would learn from it.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> def train(teacher):  # what a real one does takes longer
      ...     return {"w": teacher["w"] / 2}
      >>> made = jc.distill.generations({"w": jnp.array(4.0)}, [train, train])
      >>> [float(params["w"]) for params in made]
      [4.0, 2.0, 1.0]

    References:
      Furlanello et al., Born-again networks, 2018, https://arxiv.org/abs/1805.04770;
      Mirzadeh et al., Teacher assistant, 2020, https://arxiv.org/abs/1902.03393
    """
    made = [first]
    _check_finite(first, 0)
    for number, train in enumerate(trainings, start=1):
        made.append(train(made[-1]))
        _check_finite(made[-1], number)
    return made


def same_view(
    student: Network,
    teacher: Network,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Callable[..., tuple[Any, Any]]:
    """Ask student and teacher about one and the same picture: function matching.

    The augmentation is drawn once, and both networks get the array that it makes, so that
    the teacher is never asked about another crop than the student.

    Args:
      student: ``(params, x) -> logits``, or whatever the loss takes.
      teacher: the same of the teacher.
      augment: ``(key, x) -> x``, such as `mixup`; None: none.

    Returns:
      ``(params, teacher_params, x, key=None) -> (student's answer, teacher's answer)``.
      No gradient reaches the teacher, neither its parameters nor through ``x``.

    Raises:
      ValueError: in the function, if there is an augmentation and no key.

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
                raise ValueError("there is an augmentation to draw, and no key=.")
            x = augment(key, x)
        answer = teacher(*lax.stop_gradient((teacher_params, x)))
        return student(params, x), lax.stop_gradient(answer)

    return ask


def mixup(key: jax.Array, x: jax.Array) -> jax.Array:
    """Blend each example with another of its batch, by shares drawn evenly from [0, 1].

    There are no labels to blend: the teacher answers for what comes out.

    Args:
      key: of `jax.random`.
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
    for_order, for_shares = jax.random.split(key)
    other = x[jax.random.permutation(for_order, len(x))]
    shape = (len(x),) + (1,) * (x.ndim - 1)
    share = jax.random.uniform(for_shares, shape, x.dtype)
    return share * x + (1 - share) * other


def _check_finite(params: Params, number: int) -> None:
    for path, leaf in zip(*paths_and_leaves(params)[:2], strict=True):
        array = np.asarray(leaf)
        floating = jnp.issubdtype(array.dtype, jnp.floating)
        if floating and not np.isfinite(array.astype(np.float32)).all():
            raise ValueError(
                f"{path!r} of generation {number} is not finite: that training diverged, "
                "and every later one would learn from it."
            )
