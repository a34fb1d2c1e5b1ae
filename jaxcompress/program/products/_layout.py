# SPDX-License-Identifier: Apache-2.0
"""Layouts: map the input rows of a product to the axes of its weight leaf."""

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
    """The mapping from the input of a site to the axes of its leaf.

    Attributes:
      node: the product's node.
      site: the product's site.
      order: for a dot, indices of the pairs of contraction axes; for a convolution, the
        contraction axes of the kernel. Both are in the order of the leaf's axes.
      inside: contraction axes of the leaf, ascending.
      batch: batch axes of the leaf.
      outputs: output axes of the leaf.
      layers: axes of the leaf that loops over layers have removed, outermost first.
      groups: number of feature groups that no output mixes.
      features: number of features per group.
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
        """Reshape the input to float32 ``(groups, rows, features)``."""
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
            # It only copies values, but does so by a product in the device's precision.
            precision=lax.Precision.HIGHEST,
        )
        rows = jnp.moveaxis(patches, 1, -1).reshape(-1, conv.groups, self.features)
        inputs = kernel[conv.rhs_spec[1]]
        rows = rows.reshape(*rows.shape[:2], inputs, *window)
        position = {axis: i for i, axis in enumerate(conv.rhs_spec[1:])}
        rows = rows.transpose(1, 0, *(2 + position[axis] for axis in self.order))
        return rows.reshape(conv.groups, -1, self.features)

    def like_leaf(self, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Reshape ``(*layers, groups, features)`` to broadcast against the leaf.

        Args:
          x: one value per feature.
          shape: shape of the leaf.
        """
        # Groups of a convolution lie along its outputs, repeated once per output.
        grouped = self.outputs if self.groups > 1 and not self.batch else ()
        axes = [*self.layers, *(self.batch or grouped), *self.inside]
        sizes = {i: shape[i] for i in axes} | dict.fromkeys(grouped, self.groups)
        x = x.reshape([sizes[i] for i in axes])
        x = x.transpose(sorted(range(len(axes)), key=axes.__getitem__))
        x = x.reshape([sizes.get(i, 1) for i in range(len(shape))])
        for output in grouped:
            x = jnp.repeat(x, shape[output] // self.groups, output)
        return x


def layout(node: Node, site: Site, shape: tuple[int, ...]) -> Layout | str:
    """Return the layout of a site, or the reason why it cannot be determined.

    Args:
      node: node of the product.
      site: site of the node.
      shape: shape of the leaf.
    """
    if site.weight is None or site.primitive == "gather":
        return "it multiplies by no parameter"
    data = node.ins[1 - site.weight]
    if not data.origin.data:
        return "its input does not depend on data"
    trail = node.ins[site.weight].trail
    contraction, outputs = site.leaf_contraction, site.leaf_outputs
    if trail is None or contraction is None or outputs is None:
        return "the parameter reaches it through an operation that mixes its axes"
    summed, shared = site.contraction[site.weight], site.batch[site.weight]
    operand = node.ins[site.weight].aval.shape
    repeated = [
        n for n, axes in zip(operand, trail.axes, strict=True) if n != 1 and not axes
    ]
    if not trail.whole or repeated:
        return "it multiplies by a part of the parameter, or by reordered axes"
    if len(site.layers) != len(trail.layers):
        return "the loops over layers around it are not over this parameter's axes"
    batch = tuple(i for axis in shared for i in trail.axes[axis] or ())
    # Sort pairs in the order of the leaf's axes. Merged axes stay together.
    order = sorted(range(len(summed)), key=lambda i: trail.axes[summed[i]] or ())
    merged = tuple(j for i in order for j in trail.axes[summed[i]] or ())
    if merged != contraction or batch != tuple(sorted(batch)):
        return "it multiplies by a part of the parameter, or by reordered axes"
    features = math.prod(operand[i] for i in summed)
    leaf_axes = (contraction, batch, outputs, trail.layers)
    if site.primitive == "dot_general":
        groups = math.prod(operand[i] for i in shared)
        return Layout(node, site, tuple(order), *leaf_axes, groups, features)
    conv = _compat.convolution(node.eqn)
    if site.weight != 1 or conv.batch_groups != 1 or len(outputs) != 1:
        return "it is the convolution of a gradient"
    axes = tuple(summed[i] for i in order)
    return Layout(node, site, axes, *leaf_axes, conv.groups, features)
