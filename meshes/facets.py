"""Domains whose boundary is made of flat facets: distance, sides and samples."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pdelab.domain import AbstractDomain, BoundarySample, Seed, split_count, unit_sample
from pdelab.errors import InputError, UnknownName, check_shape
from pdelab.meshes.closest import ClosestFacet, closest_points, facet_measures

ON_BOUNDARY = 1e-12  # points nearer to the boundary than this, relative to the extent, are not inside


@dataclass(frozen=True, eq=False)
class Facets:
    """Facets of one boundary part: corners (F, d, d) and outward unit normals (F, d)."""

    corners: np.ndarray
    normals: np.ndarray

    @cached_property
    def measures(self) -> np.ndarray:
        """Length or area of each facet, (F,)."""
        return facet_measures(self.corners)

    @cached_property
    def search(self) -> ClosestFacet:
        """The structure that finds the nearest facet."""
        return ClosestFacet(self.corners)


class AbstractFacetDomain(AbstractDomain):
    """A domain whose boundary is made of flat facets: points, segments or triangles."""

    @cached_property
    @abstractmethod
    def _parts(self) -> dict[str, Facets]:
        """The facets of each part, oriented outward."""

    @abstractmethod
    def _holds(self, points: np.ndarray, foot: np.ndarray, plane: np.ndarray) -> np.ndarray:
        """Whether points (n, d) are in the domain, (n,); any answer will do on the boundary itself.

        `foot` says whether the nearest point is inside a facet, `plane` is the signed distance to its plane.
        """

    @property
    @abstractmethod
    def checksum(self) -> str:
        """SHA-256 of all arrays, hexadecimal."""

    @property
    def parts(self) -> tuple[str, ...]:
        """See `AbstractDomain.parts`; facets without a name form the part "boundary", last."""
        return tuple(self._parts)

    def boundary_measure(self, part: str | None = None) -> float:
        """See `AbstractDomain.boundary_measure`."""
        return float(self._facets(part).measures.sum())

    def signed_distance(self, x: Tensor) -> Tensor:
        """Exact distance to the facets, see `AbstractDomain.signed_distance`.

        Where the nearest point is inside a facet the distance is that to its plane, so that its gradient is
        the outward normal on the boundary too.
        """
        facets = self._facets(None)
        place, nearest, foot, number = _nearest(x, facets)
        normals = torch.as_tensor(facets.normals[number])
        plane = ((place - torch.as_tensor(facets.corners[number, 0])) * normals).sum(1)
        height = plane.detach()
        inside = torch.as_tensor(self._holds(place.detach().numpy(), foot.numpy(), height.numpy()))
        # On a slit both sides are equally near, and the one that was found may be the far one.
        flat = foot & ((inside == (height < 0)) | (height.abs() < self._resolution))
        distance = torch.where(inside, -1.0, 1.0).to(torch.float64) * _length(place - nearest)
        return torch.where(flat, plane, distance).to(x)

    def part_distance(self, x: Tensor, part: str) -> Tensor:
        """Exact distance to the facets of the part, see `AbstractDomain.part_distance`."""
        place, nearest, _, _ = _nearest(x, self._facets(part))
        return _length(place - nearest).to(x)

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Whether points (n, d) are in the open domain, (n,)."""
        x = torch.as_tensor(np.asarray(points, dtype=float))
        return (self.signed_distance(x) < -self._resolution).numpy()

    def sample_boundary(self, n: int, seed: Seed, part: str | None = None, method: str = "sobol") -> BoundarySample:
        """See `AbstractDomain.sample_boundary`; each part gets points by its measure, at least one."""
        if n < 1:
            raise InputError(f"n: expected at least 1 point, got {n}")
        names = self.parts if part is None else (part,)
        counts = split_count(n, [self.boundary_measure(name) for name in names])
        samples = []
        for name, count in zip(names, counts, strict=True):
            facets = self._facets(name)
            stream = [*([seed] if isinstance(seed, int | np.integer) else seed), self.parts.index(name)]
            number, weights = uniform_in_simplices(facets.measures, self.dimension - 1, count, stream, method)
            points = np.einsum("nj,njd->nd", weights, facets.corners[number])
            samples.append((points, facets.normals[number]))
        counts = [len(points) for points, _ in samples]
        points, normals = (np.concatenate(each) for each in zip(*samples, strict=True))
        return BoundarySample(points, normals, np.repeat(np.array(names), counts))

    @cached_property
    def _resolution(self) -> float:
        lower, upper = self.bounds
        return ON_BOUNDARY * float((upper - lower).max())

    def _facets(self, part: str | None) -> Facets:
        if part is None:
            return self._every
        if part not in self._parts:
            raise UnknownName("boundary part", part, self.parts)
        return self._parts[part]

    @cached_property
    def _every(self) -> Facets:
        parts = self._parts.values()
        return Facets(np.concatenate([p.corners for p in parts]), np.concatenate([p.normals for p in parts]))


def _nearest(x: Tensor, facets: Facets) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
    """The points in float64, their nearest points, whether these are inside their facet, and the facets."""
    check_shape("points", x, (None, facets.corners.shape[2]))
    place = x.to(torch.float64).cpu()
    number = facets.search.find(place.detach().numpy())
    nearest, foot = closest_points(place, torch.as_tensor(facets.corners[number]))
    return place, nearest, foot, number


def _length(v: Tensor) -> Tensor:
    """Euclidean norm of the rows, with gradient 0 at 0."""
    square = v.square().sum(1)
    return torch.where(square > 0, square.where(square > 0, torch.ones_like(square)).sqrt(), 0.0 * square)


def uniform_in_simplices(
    measures: np.ndarray, dimension: int, n: int, seed: Seed, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (n,) of simplices picked by measure, and uniform barycentric weights (n, dimension + 1).

    One unit sample of dimension + 1 coordinates serves both: the first picks the simplex, the others, folded
    into the unit simplex by sorting, place the point in it.
    """
    cube = unit_sample(n, dimension + 1, seed, method)
    cumulative = np.cumsum(measures)
    number = np.minimum(np.searchsorted(cumulative, cube[:, 0] * cumulative[-1], side="right"), len(measures) - 1)
    # Spacings of sorted uniform numbers are uniform on the simplex (Devroye 1986, section V.2).
    ordered = np.sort(cube[:, 1:], axis=1)
    return number, np.diff(ordered, axis=1, prepend=0.0, append=1.0)
