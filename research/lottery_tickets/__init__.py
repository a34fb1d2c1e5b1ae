# SPDX-License-Identifier: Apache-2.0
"""Lottery tickets: pruned, rewound and trained again, against what they have to beat."""
