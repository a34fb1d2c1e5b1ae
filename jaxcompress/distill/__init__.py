# SPDX-License-Identifier: Apache-2.0
"""Distillation: losses as functions of arrays, one value an example."""

from ._attention import (
    attention_relations as attention_relations,
    attention_transfer as attention_transfer,
)
from ._chunked import kl_of_heads as kl_of_heads
from ._decoupled import decoupled as decoupled
from ._dist import dist_inter as dist_inter, dist_intra as dist_intra
from ._features import cosine as cosine, hint as hint
from ._invert import (
    Moments as Moments,
    invert as invert,
    moment_distance as moment_distance,
    moments as moments,
    total_variation as total_variation,
)
from ._layers import (
    from_teacher as from_teacher,
    match as match,
    take_layers as take_layers,
)
from ._logits import (
    hard_labels as hard_labels,
    jensen_shannon as jensen_shannon,
    kl as kl,
    kl_by_class as kl_by_class,
    reverse_kl as reverse_kl,
    squared_logits as squared_logits,
    standardized as standardized,
)
from ._memory import (
    Memory as Memory,
    crd as crd,
    draw_negatives as draw_negatives,
    info_nce as info_nce,
    memory as memory,
    nce as nce,
)
from ._relations import (
    contrastive as contrastive,
    relational_angle as relational_angle,
    relational_distance as relational_distance,
    similarity_preserving as similarity_preserving,
)
from ._rollout import (
    check_causal as check_causal,
    own_or_data as own_or_data,
    rollout as rollout,
    rollout_steps as rollout_steps,
)
from ._schemes import (
    generations as generations,
    mixup as mixup,
    same_view as same_view,
)
from ._self import earlier_teacher as earlier_teacher, ema_teacher as ema_teacher
from ._slices import take_slices as take_slices
from ._teachers import ensemble as ensemble
from ._top_k import (
    Known as Known,
    Tail as Tail,
    TopK as TopK,
    bucket as bucket,
    renormalize as renormalize,
    top_k as top_k,
    top_k_kl as top_k_kl,
    zero as zero,
)
