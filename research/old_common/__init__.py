# SPDX-License-Identifier: Apache-2.0
"""What studies of training from scratch share: a network, a scan, a folder, a picture."""

from ._bar import Progress as Progress, console as console
from ._cli import Options as Options, RunError as RunError, main as main
from ._network import Perceptron as Perceptron, no_larger as no_larger
from ._picture import Curve as Curve, picture as picture
from ._results import (
    file_bytes as file_bytes,
    mean_and_spread as mean_and_spread,
    sparsity_of as sparsity_of,
    text_of as text_of,
    write as write,
)
from ._session import Session as Session, adjusted as adjusted
from ._training import (
    accuracy as accuracy,
    compiled as compiled,
    initial as initial,
    loss_of as loss_of,
    order as order,
    scan as scan,
)
