# SPDX-License-Identifier: Apache-2.0
"""Settings of the whole test run, doctests included."""

import os

# Before JAX starts: four virtual devices, so that sharding is tested everywhere.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes the first example of a shape slow; that is no fault of the code.
hypothesis.settings.register_profile(
    "jax", deadline=None, max_examples=25, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("jax")


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """Drawn shapes compile thousands of programs; a module does not need another's."""
    yield
    jax.clear_caches()
