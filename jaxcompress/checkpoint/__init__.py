# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: save and restore any pytree bit for bit, safe against a kill anytime."""

from ._errors import CheckpointError
from ._restore import restore_checkpoint
from ._save import checkpoint_steps, save_checkpoint

__all__ = [
    "CheckpointError",
    "checkpoint_steps",
    "restore_checkpoint",
    "save_checkpoint",
]
