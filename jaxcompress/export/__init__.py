# SPDX-License-Identifier: Apache-2.0
"""Export to the runtimes of phones, PCs and servers."""
