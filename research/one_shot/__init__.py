# SPDX-License-Identifier: Apache-2.0
"""Pruning in one shot, without training afterwards: what second-order terms are worth."""
