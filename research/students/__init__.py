# SPDX-License-Identifier: Apache-2.0
"""Teachers and students: networks, how they are trained, and rows of such students."""

from ._config import (
    Basis as Basis,
    Setting as Setting,
    basis_of as basis_of,
    chosen as chosen,
)
from ._images import subset as subset, views_of as views_of
from ._network import Answers as Answers, ByPatches as ByPatches, Network as Network
from ._rows import (
    ALONE as ALONE,
    KL as KL,
    KL_ALONE as KL_ALONE,
    LABELS_ALONE as LABELS_ALONE,
    Asked as Asked,
    Loss as Loss,
    Remembered as Remembered,
    Row as Row,
    kl as kl,
    of as of,
)
from ._tables import (
    TEACHER as TEACHER,
    TEACHERS as TEACHERS,
    Record as Record,
    gain as gain,
    grouped as grouped,
    markdown as markdown,
    rows_of_picture as rows_of_picture,
    summary as summary,
)
from ._train import (
    Runs as Runs,
    Transfer as Transfer,
    fitted as fitted,
    only_logits as only_logits,
    teachers as teachers,
)
