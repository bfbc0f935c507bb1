"""A problem of the catalogue on another domain, such as the user's own mesh."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

from pdelab.domain import AbstractDomain
from pdelab.errors import IncompatibleProblem, MeshError
from pdelab.pde import AbstractDiffusionProblem, AbstractElasticityProblem, AbstractProblem, Computed, Periodic


def on_mesh_file(problem: AbstractProblem, path: str | Path) -> AbstractProblem:
    """The same equations and conditions on the mesh of a file, or inside the closed surface of an .stl file.

    Raises:
        MeshError: the file is no usable mesh, or has another dimension than the problem.
        IncompatibleProblem: a condition names a boundary part that the mesh does not have.
    """
    # Named by text: the core does not import the folders that are built on it.
    domains = importlib.import_module("pdelab.meshes.domain")
    kind = domains.SurfaceDomain if Path(path).suffix.lower() == ".stl" else domains.MeshDomain
    domain = kind.read(Path(path))
    return on_domain(problem, domain, identity=f"{Path(path).name}:{domain.checksum[:16]}")


def on_domain(problem: AbstractProblem, domain: AbstractDomain, *, identity: str) -> AbstractProblem:
    """The same equations and conditions on another domain.

    The reference of the original no longer holds: a diffusion problem gets one by finite elements on the
    mesh and its refinement, any other problem has none. Of periodic problems only elastic cells can be restated; the
    solver sees to it that opposite sides match, and takes the materials from the regions of the mesh.

    Args:
        problem: what to restate; it is not changed.
        domain: of the same dimension, with every boundary part that the conditions name.
        identity: tells this domain from others; a parameter of the new problem, so that stored references
            of two domains are never mixed up.
    """
    if domain.dimension != problem.domain.dimension:
        raise MeshError(
            f"{problem.name} is posed in {problem.domain.dimension} space dimensions, "
            f"the mesh has {domain.dimension}; give a mesh of the problem's dimension"
        )
    for condition in problem.conditions():
        if isinstance(condition, Periodic) and not isinstance(problem, AbstractElasticityProblem):
            raise IncompatibleProblem(f"{problem.name} is periodic in {condition.axis}; a mesh has no opposite sides")
        part = getattr(condition, "part", None)
        if part is not None and part not in domain.parts:
            raise IncompatibleProblem(
                f"{problem.name} has a condition on the boundary part {part!r}; the mesh names "
                f"{', '.join(domain.parts) or 'none'}: name that part in the mesh file"
            )
    recipe = None
    if isinstance(problem, AbstractDiffusionProblem):
        order = 2 if domain.dimension < 3 else 1  # on refined tetrahedra order 2 costs too much
        recipe = Computed("fem", fine={"order": order, "refinements": 1}, coarse={"order": order})
    original = type(problem)
    members: dict[str, Any] = {
        "__doc__": original.__doc__,
        "__module__": original.__module__,
        "domain": domain,
        "reference": lambda self: recipe,
        "parameters": property(lambda self: {**problem.parameters, "mesh": identity}),
    }
    if isinstance(problem, AbstractElasticityProblem):
        members["weak"] = "the jump of the strain between the regions of the mesh"
    # A subclass, as a domain may be an attribute of the class or a property: neither can be set on the object.
    restated = copy.copy(problem)
    object.__setattr__(restated, "__class__", type(original.__name__, (original,), members))
    return restated
