# SPDX-License-Identifier: Apache-2.0
"""Neural networks made smaller and faster, as pure functions over parameter pytrees."""

from . import (
    distill as distill,
    formats as formats,
    interchange as interchange,
    numerics as numerics,
    program as program,
    prune as prune,
    quantize as quantize,
    teacher_cache as teacher_cache,
    testing as testing,
)
from ._combine import chain as chain, masked as masked, partition as partition
from ._compressor import (
    Active as Active,
    Compressor as Compressor,
    Learned as Learned,
    Restart as Restart,
    Teacher as Teacher,
    compress as compress,
    identity as identity,
)
from ._fresh import fresh as fresh
from ._loss import Aux as Aux, Mean as Mean
from ._select import is_weight as is_weight
from ._version import __version__ as __version__
from .checkpoint import (
    CheckpointError as CheckpointError,
    checkpoint_steps as checkpoint_steps,
    restore_checkpoint as restore_checkpoint,
    save_checkpoint as save_checkpoint,
)
from .factorize import factorize as factorize, low_rank as low_rank
from .leaves import (
    Codebook as Codebook,
    Leaf as Leaf,
    LowRank as LowRank,
    PackedCodes as PackedCodes,
    QArray as QArray,
    SparseArray as SparseArray,
    dense as dense,
    pack_codes as pack_codes,
    sparsify as sparsify,
)
from .numerics import ste as ste
from .pack import ArtifactError as ArtifactError, load as load, save as save
from .program import (
    count as count,
    execute as execute,
    observe as observe,
    quantize_activations as quantize_activations,
    rewrite as rewrite,
    sites as sites,
    taps as taps,
)
from .prune import (
    lottery_ticket as lottery_ticket,
    magnitude_pruning as magnitude_pruning,
    movement_pruning as movement_pruning,
    rigl as rigl,
    set_training as set_training,
)
from .quantize import (
    PerChannel as PerChannel,
    PerGroup as PerGroup,
    PerTensor as PerTensor,
    weight_quantization as weight_quantization,
)
from .share import weight_sharing as weight_sharing
from .train import TrainState as TrainState, train_step as train_step
from .wrap import unwrap as unwrap, wrap_optimizer as wrap_optimizer
