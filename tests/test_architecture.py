# SPDX-License-Identifier: Apache-2.0
"""What ARCHITECTURE.md says about the house is so."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxcompress"
CORE = {
    "_arguments", "_axes", "_combine", "_compressor", "_mesh", "_names", "_origin",
    "_refuse", "_select", "_signatures", "_types", "_warn", "_wrong_state", "layerwise",
    "numerics", "formats", "leaves", "prune", "quantize", "share", "factorize", "distill",
}  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def concern(path):
    """First part of a module's path in the package, without its ending."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path, *, top_level_only):
    """Absolute names of what a module imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    depth = len(path.relative_to(ROOT).parts) - 1
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(path.relative_to(ROOT).parts[: depth - node.level + 1])
            prefix = ".".join(base) + "." if node.level else ""
            if node.module is None:
                yield from (prefix + alias.name for alias in node.names)
            else:
                yield prefix + node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_dependencies_point_one_way(path):
    names = list(imports(path, top_level_only=False))
    assert not [n for n in names if n.startswith(("jax._src", "research", "tests"))]
    if concern(path) in CORE:
        inside = {n.split(".")[1] for n in names if n.startswith("jaxcompress.")}
        assert inside <= CORE
        outside = {n.split(".")[0] for n in names} - {"jaxcompress"}
        third = outside - set(sys.stdlib_module_names)
        assert third <= {"jax", "ml_dtypes", "numpy", "optax"}


def test_two_files_know_how_jax_represents_programs():
    trace = PACKAGE / "program" / "trace"
    for path in MODULES:
        names = imports(path, top_level_only=False)
        inside = [n for n in names if n.startswith(("jax.extend", "jax.interpreters"))]
        # What an equation is called like has not changed; its parameters have.
        read = "eqn.params" in path.read_text()
        known = path in (trace / "_compat.py", trace / "_compat_shapes.py")
        assert known or not (inside or read), path


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    names = {n.split(".")[0] for n in imports(path, top_level_only=True)}
    assert not names & {"orbax", "safetensors", "constriction", "flax", "chex"}


def test_private_modules_of_a_folder_are_its_own():
    for path in MODULES:
        for name in imports(path, top_level_only=False):
            parts = name.split(".")
            if (
                parts[0] == "jaxcompress"
                and len(parts) > 2
                and parts[2].startswith("_")
            ):
                assert parts[1] == concern(path), f"{path} imports {name}"


def test_studies_use_the_public_interface_only():
    for path in (ROOT / "research").rglob("*.py"):
        for name in imports(path, top_level_only=False):
            private = any(part.startswith("_") for part in name.split(".")[1:])
            assert not (name.startswith("jaxcompress.") and private), f"{path}: {name}"


def test_importing_the_package_starts_no_backend_and_loads_nothing_heavy():
    script = (
        "import sys, jaxcompress\n"
        "heavy = {'orbax.checkpoint', 'constriction', 'safetensors', 'flax'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_map_names_every_module():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    missing = {
        concern(path)
        for path in MODULES
        if concern(path) not in ("__init__", "_version")
    }
    assert not [name for name in missing if name not in text]


def test_every_source_file_names_its_license():
    folders = ("jaxcompress", "research", "tests", "benchmarks")
    for path in (p for folder in folders for p in (ROOT / folder).rglob("*.py")):
        assert path.read_text().startswith("# SPDX-License-Identifier: Apache-2.0"), (
            path
        )


def test_files_hold_one_idea():
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 350, path
