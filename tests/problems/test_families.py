"""Families of problems: what their members have in common."""

import pytest
import torch

from pdelab import registry, sampling
from pdelab.calculus import jet
from pdelab.pde import equations


@pytest.mark.parametrize(
    "family", [f for f in registry.names("families") if registry.load("families", f).shares_equations]
)
def test_members_that_share_equations_have_one_residual(family):
    # Of one member's equations solvers take the residual of all.
    members = [registry.load("families", family)().sample(seed) for seed in (0, 10**6 + 3)]
    points = torch.as_tensor(sampling.interior(members[0], 50, 6151))
    generator = torch.Generator().manual_seed(2287)
    waves = torch.rand(points.shape[1], len(members[0].components), generator=generator, dtype=torch.float64)

    def field(x):
        return 0.5 + 0.25 * torch.sin(x @ waves)

    first, second = (
        torch.stack(equations(m.residual(jet(field, points, m.components, m.axes)))).detach() for m in members
    )
    assert first.abs().max() > 0 and torch.equal(first, second)


def test_most_families_of_starts_share_their_equations():
    shared = {f for f in registry.names("families") if registry.load("families", f).shares_equations}
    assert {"burgers-random-v1", "diffusion-sorption-v1", "kolmogorov-v1", "vorticity-v1"} <= shared
    assert not shared & {"darcy-v1", "darcy-holes-v1", "gaussian-sums-v1"}
