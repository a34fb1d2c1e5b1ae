# SPDX-License-Identifier: Apache-2.0
"""Neural networks made smaller and faster, as pure functions over parameter pytrees."""

from . import (
    distill,
    export,
    formats,
    interchange,
    numerics,
    program,
    prune,
    quantize,
    rate,
    report,
    structured,
    teacher_cache,
    testing,
)
from ._axes import Axes
from ._combine import chain, masked, partition
from ._compressor import (
    Active,
    Compressor,
    Learned,
    Restart,
    Teacher,
    compress,
    identity,
)
from ._fresh import fresh
from ._loss import Aux, Mean
from ._select import is_weight
from ._version import __version__
from .checkpoint import (
    CheckpointError,
    checkpoint_steps,
    restore_checkpoint,
    save_checkpoint,
)
from .factorize import factorize, low_rank
from .leaves import (
    Codebook,
    Leaf,
    LowRank,
    PackedCodes,
    QArray,
    SparseArray,
    dense,
    pack_codes,
    sparsify,
)
from .numerics import ste
from .pack import ArtifactError, load, save
from .program import (
    count,
    execute,
    observe,
    quantize_activations,
    rewrite,
    sites,
    taps,
    weight_axes,
)
from .prune import (
    lottery_ticket,
    magnitude_pruning,
    movement_pruning,
    rigl,
    set_training,
)
from .quantize import (
    PerChannel,
    PerGroup,
    PerTensor,
    weight_quantization,
)
from .share import weight_sharing
from .structured import shrink, trace_axes
from .train import TrainState, train_step
from .wrap import unwrap, wrap_optimizer

__all__ = [
    "Axes",
    "weight_axes",
    "Active",
    "ArtifactError",
    "Aux",
    "CheckpointError",
    "Codebook",
    "Compressor",
    "Leaf",
    "Learned",
    "LowRank",
    "Mean",
    "PackedCodes",
    "PerChannel",
    "PerGroup",
    "PerTensor",
    "QArray",
    "Restart",
    "SparseArray",
    "Teacher",
    "TrainState",
    "__version__",
    "chain",
    "checkpoint_steps",
    "compress",
    "count",
    "dense",
    "distill",
    "export",
    "execute",
    "factorize",
    "formats",
    "fresh",
    "identity",
    "interchange",
    "is_weight",
    "load",
    "lottery_ticket",
    "low_rank",
    "magnitude_pruning",
    "masked",
    "movement_pruning",
    "numerics",
    "observe",
    "pack_codes",
    "partition",
    "program",
    "prune",
    "quantize",
    "quantize_activations",
    "rate",
    "report",
    "restore_checkpoint",
    "rewrite",
    "rigl",
    "save",
    "save_checkpoint",
    "set_training",
    "shrink",
    "sites",
    "sparsify",
    "ste",
    "structured",
    "taps",
    "teacher_cache",
    "testing",
    "trace_axes",
    "train_step",
    "unwrap",
    "weight_quantization",
    "weight_sharing",
    "wrap_optimizer",
]
