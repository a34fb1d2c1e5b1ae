# SPDX-License-Identifier: Apache-2.0
"""Hinton's omitted class: students recognize a class of which they saw no example."""
