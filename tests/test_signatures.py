# SPDX-License-Identifier: Apache-2.0
"""What ``help`` shows is readable."""

import importlib
import inspect
import pkgutil
import pydoc

import pytest

import jaxcompress as jc

PUBLIC = sorted(
    module.name
    for module in pkgutil.walk_packages(jc.__path__, "jaxcompress.")
    if not any(part.startswith("_") for part in module.name.split("."))
)


@pytest.mark.parametrize("name", ["jaxcompress", *PUBLIC])
def test_signatures_name_their_defaults(name):
    module = importlib.import_module(name)
    for export in module.__all__:
        value = getattr(module, export)
        if inspect.isfunction(value):
            assert " at 0x" not in str(inspect.signature(value)), export


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_module_lists_what_it_exports(name):
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    listed = pydoc.plain(pydoc.render_doc(module))
    for export in module.__all__:
        if inspect.isfunction(getattr(module, export)):
            assert f"    {export}(" in listed, export


def test_reports_need_no_extra_import():
    assert jc.report.size and "report" in jc.__all__
