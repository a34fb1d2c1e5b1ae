# SPDX-License-Identifier: Apache-2.0
import pytest


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("pack") / "net.safetensors"
