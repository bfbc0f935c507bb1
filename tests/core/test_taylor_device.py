"""Residual and gradient in Taylor mode ask for no number on the host, so that they can be queued and captured."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import pdelab
from pdelab import sampling
from pdelab.calculus import Sites, TaylorJet, jet
from pdelab.pde import derivatives_wanted, equations
from pdelab.solver import Context
from pdelab.solvers.pinn import PINN

SEED = 3301


def loss_and_gradient(problem, field, sites):
    f = jet(field, sites, problem.components, problem.axes)
    assert isinstance(f, TaylorJet)
    loss = torch.stack([r.square().mean() for r in equations(problem.residual(f))]).sum()
    return loss, torch.autograd.grad(loss, list(field.parameters()))


def prepared(name, network, device="cpu"):
    problem = pdelab.problem(name)
    field, _ = PINN(network=network, width=6, depth=2)._field(problem, Context(seed=SEED))
    points = torch.as_tensor(sampling.interior(problem, 32, SEED, "sobol")).to(device)
    return problem, field.to(device), Sites(points, derivatives_wanted(problem))


@pytest.mark.parametrize("name", ["burgers", "poisson-holes", "cavity", "kdv"])
@pytest.mark.parametrize("network", ["mlp", "modified-mlp", "siren"])
def test_no_value_is_read_on_the_host(name, network):
    """Tensors without values: shapes are all there is, and any read of a value is an error."""
    problem, field, sites = prepared(name, network)
    loss_and_gradient(problem, field, sites)  # what is computed once for the points
    with FakeTensorMode(allow_non_fake_inputs=True):
        loss, gradient = loss_and_gradient(problem, field, sites)
        with pytest.raises(DataDependentOutputException):
            float(loss.detach())
    assert [g.shape for g in gradient] == [p.shape for p in field.parameters()]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["burgers", "cavity"])
def test_a_captured_graph_replays_to_the_eager_result(name):
    problem, field, sites = prepared(name, "mlp", "cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            loss_and_gradient(problem, field, sites)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, gradient = loss_and_gradient(problem, field, sites)
    with torch.no_grad():
        for p in field.parameters():
            p.mul_(1.1).add_(0.01)
    graph.replay()
    again, expected = loss_and_gradient(problem, field, sites)
    assert torch.allclose(loss, again, rtol=1e-12)
    for a, b in zip(gradient, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12 * float(b.abs().max()))
