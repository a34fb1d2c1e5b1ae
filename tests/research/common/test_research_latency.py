# SPDX-License-Identifier: Apache-2.0
import time

from research import common


def test_times_are_relative_to_the_first():
    def call(seconds):
        return lambda: time.sleep(seconds)

    times = common.interleaved({"a": call(0.002), "b": call(0.02)}, 5)
    assert times["a"].ratio == 1 and times["a"].seconds >= 0.002
    assert times["b"].ratio > 1.5
