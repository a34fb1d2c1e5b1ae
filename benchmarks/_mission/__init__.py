# SPDX-License-Identifier: Apache-2.0
"""The mission's ten tables: networks, recipes, measurements, and the rules of a verdict."""
