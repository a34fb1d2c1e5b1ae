# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: one question a file, each a table and one JSON line."""
