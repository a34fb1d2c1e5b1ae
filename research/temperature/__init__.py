# SPDX-License-Identifier: Apache-2.0
"""The temperature of a teacher, for students of few bits and of many."""
