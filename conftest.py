# SPDX-License-Identifier: Apache-2.0
"""Settings of the whole test run, doctests included."""

import atexit
import gc
import importlib.metadata
import os
import shutil
import tempfile

# Before JAX starts: four virtual devices, so that sharding is tested everywhere.
os.environ["JAX_PLATFORMS"] = "cpu"
_flags = [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=4",
    "--xla_cpu_parallel_codegen_split_count=1",  # small programs gain nothing by more
]

# Compilation takes most of the time, and careful machine code pays for no small array. Set
# it to 0 for the programs that users get: continuous integration does so for the laws.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
_jaxlib = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and _jaxlib < (0, 11):
    # A third of the time again. Newer versions do not know the flag, and stop at it.
    _flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(_flags)

# An eager `lax.cond` is compiled anew in every call, and modules and subprocesses compile
# what others have: equal programs are compiled once a run.
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share the folder of the run
    _programs = tempfile.mkdtemp(prefix="programs")
    atexit.register(shutil.rmtree, _programs, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

# No deadline: the first example of a shape is slow because it is compiled. Few examples
# for a person's run; continuous integration draws more ("long"), "thorough" is for you.
hypothesis.settings.register_profile(
    "jax", deadline=None, max_examples=3, derandomize=True, print_blob=True
)
for _profile, _examples in (("long", 25), ("thorough", 250)):
    hypothesis.settings.register_profile(
        _profile, hypothesis.settings.get_profile("jax"), max_examples=_examples
    )
hypothesis.settings.load_profile("jax")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what lives as long as the run, and come seldom.

    Modules, tests and programs are millions of objects. Looking through them again and
    again would take a twentieth of the run.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


class _Programs:
    """Counts the programs that JAX holds in memory."""

    MOST = 1500  # about two gigabytes

    def __init__(self) -> None:
        self._number = 0
        jax.monitoring.register_event_duration_secs_listener(self._count)

    def _count(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        del duration_secs, kwargs
        self._number += event == "/jax/core/compile/backend_compile_duration"

    def forget_many(self) -> None:
        """Drop all of them if they are many."""
        if self._number > self.MOST:
            jax.clear_caches()
            self._number = 0


_counted = _Programs()


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """Modules share small programs, until those of drawn shapes fill the memory."""
    yield
    _counted.forget_many()
