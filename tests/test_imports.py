"""Which folder may import what, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "pdelab": "pdelab",
    "meshes": "pdelab.meshes",
    "solvers": "pdelab.solvers",
    "benchmarks": "pdelab.benchmarks",
}
FORBIDDEN = {
    "pdelab": ("pdelab.meshes", "pdelab.solvers", "pdelab.benchmarks"),
    "meshes": ("pdelab.solvers", "pdelab.benchmarks"),
    "solvers": ("pdelab.benchmarks",),
    "benchmarks": ("pdelab.solvers", "pdelab.meshes"),
}
ONLY_IN = {
    "deepxde": {"solvers/deepxde.py"},
    "torch_geometric": {"meshes/convert.py", "meshes/movers/_graph_net.py", "solvers/_mesh_graph_net.py"},
    "pyvista": {"meshes/convert.py", "pdelab/view.py"},
    "typer": {"pdelab/cli.py"},
    "gmsh": {"meshes/generate.py"},
    "numba": {"solvers/linear/_incomplete_cholesky.py"},
}
FILES = sorted(f for folder in FOLDERS for f in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, at any depth."""
    relative = path.relative_to(ROOT)
    package = ".".join([FOLDERS[relative.parts[0]], *relative.parts[1:-1]])
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    relative = str(path.relative_to(ROOT))
    names = imported(path)
    for forbidden in FORBIDDEN[relative.split("/")[0]]:
        wrong = {n for n in names if n == forbidden or n.startswith(f"{forbidden}.")}
        assert not wrong, f"{relative} imports {wrong}"
    for library, places in ONLY_IN.items():
        used = {n for n in names if n.split(".")[0] == library}
        assert not used or relative in places, f"{relative} imports {library}; only {places} may"


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    return set(result.stdout.split())


def test_importing_pdelab_is_cheap_and_silent():
    heavy = {"torch", "numpy", "scipy", "pyvista", "deepxde", "matplotlib", "pydantic"}
    assert not heavy & modules_after("import pdelab")


def test_importing_the_core_loads_no_plugin():
    loaded = modules_after("import pdelab.solver, pdelab.pde, pdelab.reference, pdelab.registry")
    assert "torch" in loaded
    assert not {"deepxde", "skfem", "pyvista", "matplotlib", "gmsh", "pdelab.solvers.pinn"} & loaded
