# SPDX-License-Identifier: Apache-2.0
"""Every exported distillation loss, as a function of two arrays and a mask."""

import jax
import jax.numpy as jnp
from draws import normal, put

from jaxcompress import distill


def array(seed, *shape):
    return normal(*shape, seed=seed)


LABELS = put([0, 4, 2, 2, 1, 3], jnp.int32)
BANK = jax.jit(lambda key: distill.memory(key, 20, 5))(jax.random.key(0))
IDS = put([3, 1, 4, 15, 9, 2], jnp.int32)
OTHERS = jax.jit(lambda key: distill.draw_negatives(key, IDS, 20, 4))(jax.random.key(1))
HEADS = array(2, 5, 9), array(3, 5, 9)


def crd(contrast):
    return lambda s, t, where: distill.crd(
        s, t, BANK, IDS, OTHERS, contrast=contrast, where=where
    )[0]


def top_k_kl(tail):
    return lambda s, t, where: distill.top_k_kl(
        s, distill.top_k(t, 2), tail=tail, where=where
    )


def plain(loss):
    return lambda s, t, where: loss(s, t, where=where)


def attention_transfer(s, t, where):
    maps = (x[:, None] * jnp.array([1.0, 2.0])[None, :, None] for x in (s, t))
    return distill.attention_transfer(*maps, where=where)


def moments(s, t, where):
    of_teacher = distill.feature_moments(t, where=where)
    return distill.moment_distance(s, *of_teacher, where=where)


def ensemble(s, t, where):
    return distill.kl(s, distill.ensemble(jnp.stack([t, array(4, 6, 5)])), where=where)


CRD, TOP_K = crd(distill.nce), top_k_kl(distill.bucket)
# What is exported, as functions of (6, 5) arrays and a mask of 6.
LOSSES = {
    "attention_relations": lambda s, t, where: distill.attention_relations(
        s, t, heads=1, where=where
    ),
    "attention_transfer": attention_transfer,
    "bucket": TOP_K,
    "contrastive": plain(distill.contrastive),
    "cosine": plain(distill.cosine),
    "crd": CRD,
    "decoupled": lambda s, t, where: distill.decoupled(s, t, LABELS, where=where),
    "dist_inter": plain(distill.dist_inter),
    "dist_intra": plain(distill.dist_intra),
    "ensemble": ensemble,
    "feature_moments": lambda s, t, where: (
        distill.feature_moments(s, where=where).variance
        - distill.feature_moments(t, where=where).mean
    ),
    "hard_labels": plain(distill.hard_labels),
    "hint": plain(distill.hint),
    "info_nce": crd(distill.info_nce),
    "jensen_shannon": plain(distill.jensen_shannon),
    "kl": plain(distill.kl),
    "kl_by_class": plain(distill.kl_by_class),
    "kl_of_heads": lambda s, t, where: distill.kl_of_heads(
        s, HEADS[0], t, HEADS[1], chunk=4, where=where
    ),
    "moment_distance": moments,
    "nce": CRD,
    "relational_angle": plain(distill.relational_angle),
    "relational_distance": plain(distill.relational_distance),
    "renormalize": top_k_kl(distill.renormalize),
    "reverse_kl": plain(distill.reverse_kl),
    "similarity_preserving": plain(distill.similarity_preserving),
    "squared_logits": plain(distill.squared_logits),
    "standardized": lambda s, t, where: distill.kl(
        distill.standardized(s, where=where),
        distill.standardized(t, where=where),
        where=where,
    ),
    "top_k": TOP_K,
    "top_k_kl": TOP_K,
    "total_variation": lambda s, t, where: distill.total_variation(
        (s - t)[:, :, None], axes=(1, 2)
    ),
    "zero": top_k_kl(distill.zero),
}
NO_LOSSES = {
    "FeatureMoments", "Known", "Memory", "Tail", "TopK", "check_causal",
    "draw_negatives", "earlier_teacher", "ema_teacher", "from_teacher", "generations",
    "invert", "match", "memory", "mixup", "own_or_data", "rollout", "rollout_steps",
    "same_view", "take_layers", "take_slices",
}  # fmt: skip
