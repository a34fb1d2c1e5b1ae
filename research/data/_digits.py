# SPDX-License-Identifier: Apache-2.0
"""UCI digits: 1,797 images of 8 x 8, inside this package."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from ._dataset import Dataset, Split
from ._errors import check_sha256
from ._hold_out import hold_out

FILE = Path(__file__).parent / "digits.csv.gz"
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"

_LICENSE = "CC BY 4.0"
_CITATION = (
    "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, "
    "UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49"
)


def load_digits(*, file: Path = FILE, sha256: str = SHA256) -> Dataset:
    """The digits, split in 1,257 to train, 180 to validate and 360 to test."""
    packed = file.read_bytes()
    check_sha256(packed, sha256, path=file, what="content")
    table = np.loadtxt(
        gzip.decompress(packed).decode("ascii").splitlines(),
        delimiter=",",
        dtype=np.float32,
    )
    x = table[:, :64].reshape(-1, 8, 8, 1) / 16  # pixels are counts, 0 to 16
    y = table[:, 64].astype(np.int32)
    rest, test = hold_out(y, every=5, seed=0)
    kept, held = hold_out(y[rest], every=8, seed=1)
    train, validation = rest[kept], rest[held]
    return Dataset(
        name="digits",
        train=Split(x[train], y[train]),
        validation=Split(x[validation], y[validation]),
        test=Split(x[test], y[test]),
        classes=tuple("0123456789"),
        source="digits.csv.gz of this package",
        license=_LICENSE,
        citation=_CITATION,
    )
