"""The strong baseline: every problem by the classical solver that fits it best, at a good point of error against cost.

Neural solvers must face these rows, not a weak grid method. Where it is cheap, in one dimension or without time, there
are two resolutions, "coarse" and "fine", so that the rate of convergence shows. Without a row are the problems that no
classical solver here can take: the inverse problems, whose coefficients are unknown, and `poisson-nd`, whose five
dimensions no grid fills.

Limits on `rel_l2` are about three times the measured error; where `cpu_s` has one, it is far above the measured seconds
of one thread, for slow or busy machines.
"""

from __future__ import annotations

from typing import Any

from pdelab.bench import Case


def _case(problem: str, solver: str, label: str, error: float, *, cpu_s: float | None = None, **settings: Any) -> Case:
    """A row whose error may be at most `error` and whose CPU seconds at most `cpu_s`."""
    limits = {"rel_l2": error} | ({} if cpu_s is None else {"cpu_s": cpu_s})
    return Case(problem, solver, solver_args=settings, limits=limits, label=label)


CASES = (
    # Not spectral: values imposed on the outflow make Chebyshev collocation blow up.
    _case("advection", "fd", "", 1.5e-2, n=96, n_steps=120),
    _case("allen-cahn", "spectral", "coarse", 6e-5, cpu_s=3.0, n=512, n_steps=500),
    _case("allen-cahn", "spectral", "fine", 1.2e-5, cpu_s=3.0, n=1024, n_steps=800),
    _case("backward-step", "fem", "coarse", 1.5e-2, resolution=12),
    _case("backward-step", "fem", "fine", 6e-3, resolution=24),
    _case("burgers", "spectral", "coarse", 1.5e-3, cpu_s=3.0, n=512, n_steps=1000),
    _case("burgers", "spectral", "fine", 2e-8, cpu_s=6.0, n=1536, n_steps=2000),
    # The front moves by 50 in the time interval: many levels, so that it is not lost between them.
    _case("burgers-moving", "spectral", "coarse", 3e-5, cpu_s=6.0, n=256, n_steps=3200, n_levels=3201),
    _case("burgers-moving", "spectral", "fine", 1e-6, cpu_s=8.0, n=512, n_steps=3200, n_levels=3201),
    _case("burgers-random", "spectral", "", 3e-5, cpu_s=3.0, n=256, n_steps=400, n_levels=401),
    _case("burgers-2d", "spectral", "", 2e-8, n=128, n_steps=100),
    _case("cavity", "fem", "coarse", 2e-1, cpu_s=3.0, resolution=24),
    _case("cavity", "fem", "fine", 4e-2, cpu_s=20.0, resolution=48),
    _case("cavity-parabolic", "fem", "coarse", 1.5e-2, resolution=24),
    _case("cavity-parabolic", "fem", "fine", 4e-3, resolution=48),
    _case("convection", "spectral", "", 3e-10, cpu_s=2.0, n=32, n_steps=800),
    _case("cylinder", "fem", "coarse", 1.5e-2, resolution=10),
    _case("cylinder", "fem", "fine", 1e-2, resolution=16),
    _case("darcy", "fem", "", 4e-4, resolution=48, order=2),
    _case("darcy", "fd", "", 8e-4, n=48),
    _case("darcy", "spectral", "", 6e-5, n=48),
    _case("darcy-holes", "fem", "coarse", 9e-3, resolution=16, order=2),
    _case("darcy-holes", "fem", "fine", 3e-3, resolution=32, order=2),
    # The mesh follows the pixels of the permeability.
    _case("darcy-piecewise", "fem", "coarse", 3e-3, resolution=32, order=2),
    _case("darcy-piecewise", "fem", "fine", 8e-4, resolution=64, order=2),
    _case("deformation", "fd", "", 1.7e-3, n=96, n_steps=40),
    _case("diffusion-sorption", "fd", "coarse", 3e-5, n=64, n_steps=40, clustering=0.9, grading=4.0),
    _case("diffusion-sorption", "fd", "fine", 2e-6, n=128, n_steps=60, clustering=0.9, grading=4.0),
    _case("flow-mixing", "fd", "", 1.5e-3, n=96, n_steps=40),
    _case("gray-scott", "spectral", "", 2.5e-3, n=192, n_steps=120),
    _case("heat", "spectral", "coarse", 1e-8, n=16, n_steps=20),
    _case("heat", "spectral", "fine", 3e-10, n=24, n_steps=40),
    _case("heat", "fem", "", 5e-5, resolution=64, order=2, n_steps=100),
    _case("heat-complex", "fem", "coarse", 1.5e-2, resolution=12, order=2, n_steps=20),
    _case("heat-complex", "fem", "fine", 8e-3, resolution=20, order=2, n_steps=30),
    _case("heat-long", "fd", "", 1.5e-1, n=(64, 48), n_steps=24, tolerance=1e-5),
    _case("heat-multiscale", "fd", "", 8e-6, n=(192, 24), n_steps=30),
    _case("heat-variable", "fd", "", 3e-3, n=40, n_steps=60),
    _case("helmholtz", "fd", "", 8e-4, cpu_s=1.0, n=64),
    _case("helmholtz", "spectral", "", 5e-8, cpu_s=1.0, n=28),
    _case("kdv", "spectral", "coarse", 3e-5, cpu_s=3.0, n=256, n_steps=500),
    _case("kdv", "spectral", "fine", 5e-7, cpu_s=6.0, n=512, n_steps=2000),
    _case("klein-gordon", "fd", "", 2.5e-8, n=8, n_steps=200),
    _case("kolmogorov-flow", "spectral", "", 1e-5, n=96, n_steps=100),
    _case("kuramoto-sivashinsky", "spectral", "coarse", 5e-6, cpu_s=3.0, n=256, n_steps=200),
    _case("kuramoto-sivashinsky", "spectral", "fine", 6e-7, cpu_s=4.0, n=384, n_steps=500),
    _case("nonlinear-diffusion", "fd", "", 1.2e-3, n=64, n_steps=14),
    _case("poisson", "spectral", "", 1e-11, cpu_s=1.0, n=12),
    _case("poisson", "fd", "", 2e-7, cpu_s=1.0, n=64),
    _case("poisson", "fem", "coarse", 6e-5, cpu_s=1.0, resolution=32, order=2),
    _case("poisson", "fem", "fine", 8e-6, cpu_s=2.0, resolution=64, order=2),
    _case("poisson-3d", "fem", "coarse", 3e-2, resolution=12, order=2),
    _case("poisson-3d", "fem", "fine", 1e-2, cpu_s=20.0, resolution=20, order=2),
    _case("poisson-boltzmann", "fem", "coarse", 1.2e-2, resolution=24, order=2),
    _case("poisson-boltzmann", "fem", "fine", 8e-4, resolution=64, order=2),
    _case("poisson-holes", "fem", "coarse", 2.5e-3, resolution=20, order=2),
    _case("poisson-holes", "fem", "fine", 1.5e-4, resolution=60, order=2),
    _case("poisson-lshape", "fem", "coarse", 1.5e-3, resolution=32, order=2),
    _case("poisson-lshape", "fem", "fine", 2e-4, resolution=128, order=2),
    _case("reaction", "spectral", "coarse", 1.5e-4, n=256, n_steps=400),
    _case("reaction", "spectral", "fine", 5e-5, n=512, n_steps=800),
    _case("reaction-diffusion", "spectral", "coarse", 3e-6, cpu_s=1.0, n=64, n_steps=200),
    _case("reaction-diffusion", "spectral", "fine", 6e-7, cpu_s=2.0, n=128, n_steps=400),
    _case("rve", "fem", "coarse", 6e-3, cpu_s=3.0, resolution=12, order=2),
    _case("rve", "fem", "fine", 8e-4, cpu_s=15.0, resolution=24, order=2),
    _case("vorticity", "spectral", "", 6e-3, n=64, n_steps=150, n_levels=76),
    _case("wave", "spectral", "coarse", 1e-4, n=16, n_steps=50),
    _case("wave", "spectral", "fine", 1e-7, n=32, n_steps=200),
    _case("wave-2d", "spectral", "", 1.6e-2, n=10, n_steps=1600),
)
