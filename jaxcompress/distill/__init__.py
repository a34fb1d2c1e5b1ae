# SPDX-License-Identifier: Apache-2.0
"""Distillation losses and schemes: functions of arrays, with one value per example.

A loss is NaN if the student or the teacher is, where they count. Gradients of losses that
ignore the scale of their input grow as it shrinks, but no further once the magnitudes of
features are below 0.001, or standard deviations of logits below 0.03.
"""

from ._attention import (
    attention_relations,
    attention_transfer,
)
from ._chunked import kl_of_heads
from ._decoupled import decoupled
from ._dist import dist_inter, dist_intra
from ._features import cosine, hint
from ._invert import (
    FeatureMoments,
    feature_moments,
    invert,
    moment_distance,
    total_variation,
)
from ._layers import (
    from_teacher,
    match,
    take_layers,
)
from ._logits import (
    hard_labels,
    jensen_shannon,
    kl,
    kl_by_class,
    reverse_kl,
    squared_logits,
    standardized,
)
from ._memory import (
    Memory,
    crd,
    draw_negatives,
    info_nce,
    memory,
    nce,
)
from ._relations import (
    contrastive,
    relational_angle,
    relational_distance,
    similarity_preserving,
)
from ._rollout import (
    check_causal,
    own_or_data,
    rollout,
    rollout_steps,
)
from ._schemes import (
    generations,
    mixup,
    same_view,
)
from ._self import earlier_teacher, ema_teacher
from ._slices import take_slices
from ._teachers import ensemble
from ._top_k import (
    Known,
    Tail,
    TopK,
    bucket,
    renormalize,
    top_k,
    top_k_kl,
    zero,
)

__all__ = [
    "FeatureMoments",
    "Known",
    "Memory",
    "Tail",
    "TopK",
    "attention_relations",
    "attention_transfer",
    "bucket",
    "check_causal",
    "contrastive",
    "cosine",
    "crd",
    "decoupled",
    "dist_inter",
    "dist_intra",
    "draw_negatives",
    "earlier_teacher",
    "ema_teacher",
    "ensemble",
    "feature_moments",
    "from_teacher",
    "generations",
    "hard_labels",
    "hint",
    "info_nce",
    "invert",
    "jensen_shannon",
    "kl",
    "kl_by_class",
    "kl_of_heads",
    "match",
    "memory",
    "mixup",
    "moment_distance",
    "nce",
    "own_or_data",
    "relational_angle",
    "relational_distance",
    "renormalize",
    "reverse_kl",
    "rollout",
    "rollout_steps",
    "same_view",
    "similarity_preserving",
    "squared_logits",
    "standardized",
    "take_layers",
    "take_slices",
    "top_k",
    "top_k_kl",
    "total_variation",
    "zero",
]
