# SPDX-License-Identifier: Apache-2.0
"""Perceptrons that are pruned, rounded and taught, in stages or in one."""

from ._config import (
    SIX as SIX,
    Basis as Basis,
    Setting as Setting,
    basis_of as basis_of,
    key_of as key_of,
)
from ._records import (
    Record as Record,
    counted as counted,
    each as each,
    name_of as name_of,
    of_row as of_row,
    part_of as part_of,
    recorded as recorded,
    summary as summary,
)
from ._rows import (
    AFTER as AFTER,
    AFTERWARDS as AFTERWARDS,
    FLOAT as FLOAT,
    JOINTLY as JOINTLY,
    LABELS as LABELS,
    LONGER as LONGER,
    METHODS as METHODS,
    NARROW as NARROW,
    NARROW_BITS as NARROW_BITS,
    PRUNE as PRUNE,
    PRUNE_FIRST as PRUNE_FIRST,
    QUANTIZE as QUANTIZE,
    SAME_AS as SAME_AS,
    SMALL as SMALL,
    THREE as THREE,
    Row as Row,
    Teaching as Teaching,
    outer as outer,
    quantizes as quantizes,
    setting_of as setting_of,
    taught as taught,
)
from ._train import CHANNELS as CHANNELS, Params as Params, Runs as Runs
