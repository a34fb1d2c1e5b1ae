# SPDX-License-Identifier: Apache-2.0
"""The artifact: a tree of parameters as one small file, and back, bit for bit."""

from ._errors import ArtifactError as ArtifactError
from ._file import Contents as Contents, inspect as inspect, load as load, save as save
from ._manifest import Entry as Entry
