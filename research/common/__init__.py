# SPDX-License-Identifier: Apache-2.0
"""What studies share: command line, folder, jobs, choices, tables, verdicts, training."""

from ._cli import Options as Options, main as main
from ._errors import RunError as RunError, UsageError as UsageError
from ._folder import Folder as Folder, chosen_by as chosen_by
from ._jobs import Codec as Codec, Job as Job
from ._latency import Time as Time, interleaved as interleaved
from ._measure import (
    accuracy as accuracy,
    file_bytes as file_bytes,
    in_chunks as in_chunks,
    logits as logits,
    right as right,
    sparsity_of as sparsity_of,
)
from ._network import (
    CONTROLS as CONTROLS,
    SMALL as SMALL,
    SMALL_MACS as SMALL_MACS,
    Perceptron as Perceptron,
    control as control,
    narrowed as narrowed,
    no_larger as no_larger,
    no_more_bytes as no_more_bytes,
    no_more_macs as no_more_macs,
)
from ._picture import (
    Curve as Curve,
    band as band,
    by_sparsity as by_sparsity,
    error_bars as error_bars,
    figure as figure,
    finish as finish,
)
from ._records import (
    as_json as as_json,
    grouped as grouped,
    largest_file as largest_file,
    mean as mean,
    mean_and_spread as mean_and_spread,
    percent as percent,
    summary as summary,
    summary_rows as summary_rows,
    text_of as text_of,
    values as values,
)
from ._search import (
    Search as Search,
    text_of_candidate as text_of_candidate,
)
from ._session import Session as Session, adjusted as adjusted
from ._study import Study as Study, runner as runner
from ._tables import (
    accuracy_lines as accuracy_lines,
    for_terminal as for_terminal,
    headed as headed,
    heading as heading,
    markdown as markdown,
    sparsity_table as sparsity_table,
    under_heading as under_heading,
)
from ._training import (
    Once as Once,
    Trainer as Trainer,
    compiled as compiled,
    cross_entropy as cross_entropy,
    loop as loop,
    loss_of as loss_of,
    order as order,
    scan as scan,
)
from ._verdicts import Claim as Claim, Measure as Measure, verdicts as verdicts
