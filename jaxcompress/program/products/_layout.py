# SPDX-License-Identifier: Apache-2.0
"""Layout: the rows that a product reads, and where their features lie in the leaf."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import lax

from ..trace import _compat
from ..trace._graph import Node
from ._site import Site


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the input of a site maps to the axes of its leaf.

    Attributes:
      node: the product.
      site: what is known of it.
      order: for a dot the pairs of summed axes, for a convolution the axes of the kernel
        that are summed over, in the order of the leaf's.
      inside: axes of the leaf that are summed over, ascending.
      batch: axes of the leaf that the product is batched over.
      outputs: axes of the leaf along which the outputs lie.
      layers: axes of the leaf that loops over layers have taken off, outermost first.
      groups: of features that no output mixes.
      features: in a group.
    """

    node: Node
    site: Site
    order: tuple[int, ...]
    inside: tuple[int, ...]
    batch: tuple[int, ...]
    outputs: tuple[int, ...]
    layers: tuple[int, ...]
    groups: int
    features: int

    def rows(self, x: jax.Array) -> jax.Array:
        """The input as float32 ``(groups, rows, features)``."""
        x = lax.stop_gradient(x).astype(jnp.float32)
        if self.node.primitive == "dot_general":
            return self._rows_of_dot(x)
        return self._rows_of_convolution(x)

    def _rows_of_dot(self, x: jax.Array) -> jax.Array:
        side = 1 - (self.site.weight or 0)
        summed = [self.site.contraction[side][i] for i in self.order]
        batch = list(self.site.batch[side])
        rest = [i for i in range(x.ndim) if i not in summed and i not in batch]
        x = x.transpose(*batch, *rest, *summed)
        return x.reshape(self.groups, -1, self.features)

    def _rows_of_convolution(self, x: jax.Array) -> jax.Array:
        conv = _compat.convolution(self.node.eqn)
        kernel = self.node.ins[1].aval.shape
        window = [kernel[i] for i in conv.rhs_spec[2:]]
        patches = lax.conv_general_dilated_patches(
            x.transpose(conv.lhs_spec),
            window,
            conv.strides,
            conv.padding,
            conv.lhs_dilation,
            conv.rhs_dilation,
            # It multiplies by ones and zeros, but in the device's own precision.
            precision=lax.Precision.HIGHEST,
        )
        rows = jnp.moveaxis(patches, 1, -1).reshape(-1, conv.groups, self.features)
        inputs = kernel[conv.rhs_spec[1]]
        parts = rows.reshape(*rows.shape[:2], inputs, *window)
        place = {axis: i for i, axis in enumerate(conv.rhs_spec[1:])}
        parts = parts.transpose(1, 0, *(2 + place[axis] for axis in self.order))
        return parts.reshape(conv.groups, -1, self.features)

    def like_leaf(self, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Lay ``(*layers, groups, features)`` out so that it broadcasts against the leaf.

        Args:
          x: one value a feature.
          shape: of the leaf.
        """
        # Groups of a convolution lie along its outputs, each as often as it has some.
        grouped = self.outputs if self.groups > 1 and not self.batch else ()
        along = [*self.layers, *(self.batch or grouped), *self.inside]
        sizes = {i: shape[i] for i in along} | dict.fromkeys(grouped, self.groups)
        x = x.reshape([sizes[i] for i in along])
        x = x.transpose(sorted(range(len(along)), key=along.__getitem__))
        x = x.reshape([sizes.get(i, 1) for i in range(len(shape))])
        for output in grouped:
            x = jnp.repeat(x, shape[output] // self.groups, output)
        return x


def layout(node: Node, site: Site, shape: tuple[int, ...]) -> Layout | str:
    """The layout of a site, or why it has none.

    Args:
      node: a product.
      site: of this node.
      shape: of its leaf.
    """
    if site.weight is None or site.primitive == "gather":
        return "it multiplies by no parameter"
    data = node.ins[1 - site.weight]
    if not data.origin.data:
        return "its input does not depend on data"
    trail = node.ins[site.weight].trail
    inside, outputs = site.leaf_contraction, site.leaf_outputs
    if trail is None or inside is None or outputs is None:
        return "the parameter reaches it through an operation that mixes its axes"
    summed, shared = site.contraction[site.weight], site.batch[site.weight]
    operand = node.ins[site.weight].aval.shape
    repeated = [
        n for n, axes in zip(operand, trail.axes, strict=True) if n > 1 and not axes
    ]
    if not trail.whole or repeated:
        return "it multiplies by a part of the parameter, or by reordered axes"
    if len(site.layers) != len(trail.layers):
        return "the loops over layers around it are not over this parameter's axes"
    batch = tuple(i for axis in shared for i in trail.axes[axis] or ())
    # Pairs in the order of the leaf's axes; those of a merged axis stay together.
    order = sorted(range(len(summed)), key=lambda i: trail.axes[summed[i]] or ())
    merged = tuple(j for i in order for j in trail.axes[summed[i]] or ())
    if merged != inside or batch != tuple(sorted(batch)):
        return "it multiplies by a part of the parameter, or by reordered axes"
    features = math.prod(operand[i] for i in summed)
    known = (inside, batch, outputs, trail.layers)
    if site.primitive == "dot_general":
        groups = math.prod(operand[i] for i in shared)
        return Layout(node, site, tuple(order), *known, groups, features)
    conv = _compat.convolution(node.eqn)
    if site.weight != 1 or conv.batch_groups != 1 or len(outputs) != 1:
        return "it is the convolution of a gradient"
    axes = tuple(summed[i] for i in order)
    return Layout(node, site, axes, *known, conv.groups, features)
