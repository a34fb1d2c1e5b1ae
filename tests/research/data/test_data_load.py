# SPDX-License-Identifier: Apache-2.0
import pytest

from research.data import NAMES, load


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="no data set 'mnist'") as error:
        load("mnist")
    assert all(name in str(error.value) for name in NAMES)


def test_digits_is_the_default_and_needs_no_network(no_sockets):
    assert load().name == load("digits").name == "digits"
