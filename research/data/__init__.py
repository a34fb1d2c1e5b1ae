# SPDX-License-Identifier: Apache-2.0
"""Data of the studies, as numpy arrays: ``load`` a set, then iterate ``batches``."""

from ._batches import batches as batches
from ._dataset import Dataset as Dataset, Split as Split
from ._errors import (
    DatasetCorrupted as DatasetCorrupted,
    DatasetNotFound as DatasetNotFound,
)
from ._load import NAMES as NAMES, load as load
