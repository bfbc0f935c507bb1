"""Time of one training step by the way in which derivatives are found: `python -m pdelab.benchmarks.derivative_times`.

A step is the mean square of the derivatives and its gradient in all weights of a tanh network 2-64-64-64-64-1 at
10 000 points. Nested differentiation is what most PINN codes do; jvp(jvp) and vmap(hessian) are what `torch.func`
offers. All of them are first compared with one another. Times are CPU seconds of one thread, or device time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pdelab.calculus import AbstractJet, Jet, Sites, Wanted, jet

AXES = ("x", "y")
N_POINTS, WIDTH, DEPTH = 10_000, 64, 4
QUANTITIES: dict[str, Callable[[AbstractJet], Tensor]] = {
    "u_x": lambda f: f.u_x,
    "u_xx": lambda f: f.u_xx,
    "laplacian": lambda f: f.laplacian("u"),
    "u_xxx": lambda f: f.u_xxx,
    "u_xxxx": lambda f: f.u_xxxx,
}
ORDERS = {"u_x": 1, "u_xx": 2, "u_xxx": 3, "u_xxxx": 4}


def step(residual: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradient of the mean square of a residual (n,)."""
    found = torch.autograd.grad(residual.square().mean(), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def ways(net: nn.Module, points: Tensor, name: str) -> dict[str, Callable[[], Tensor]]:
    """The same quantity (n,), found in different ways."""
    quantity = QUANTITIES[name]
    orders = {"laplacian": frozenset[tuple[int, ...]]()}.get(name, frozenset({(ORDERS.get(name, 0), 0)}))
    sites = Sites(points, Wanted(orders, name == "laplacian", (0, 1), 2))
    found = {
        "taylor": lambda: quantity(jet(net, sites, ("u",), AXES)),
        "nested": lambda: quantity(Jet(net, points, ("u",), AXES)),
    }

    def scalar(p: Tensor) -> Tensor:
        return net(p[None])[0, 0]

    def forward(order: int, axis: int) -> Tensor:
        along = torch.zeros_like(points)
        along[:, axis] = 1.0

        def again(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            return lambda x: torch.func.jvp(f, (x,), (along,))[1]

        f: Callable[[Tensor], Tensor] = net
        for _ in range(order):
            f = again(f)
        return f(points)[:, 0]

    if name == "laplacian":
        found["jvp"] = lambda: forward(2, 0) + forward(2, 1)
        hessian = torch.func.vmap(torch.func.hessian(scalar))
        found["vmap(hessian)"] = lambda: hessian(points).diagonal(dim1=1, dim2=2).sum(dim=1)
    else:
        found["jvp"] = lambda: forward(ORDERS[name], 0)
    if name == "u_xx":
        hessian = torch.func.vmap(torch.func.hessian(scalar))
        found["vmap(hessian)"] = lambda: hessian(points)[:, 0, 0]
    return found


def seconds(call: Callable[[], object], device: torch.device, repetitions: int) -> float:
    """The least time of some repetitions."""
    best = float("inf")
    for _ in range(repetitions + 1):  # the first warms up
        if device.type == "cuda":
            torch.cuda.synchronize()
            start = time.perf_counter()
            call()
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
        else:
            start = time.process_time()
            call()
            best = min(best, time.process_time() - start)
    return best


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """The same call as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def measure(device: torch.device, dtype: torch.dtype, n_points: int, repetitions: int) -> list[tuple[str, str, float]]:
    """(quantity, way, seconds) for each; the results of all ways are checked to agree."""
    torch.manual_seed(5801)
    sizes = [2, *[WIDTH] * DEPTH, 1]
    layers: list[nn.Module] = []
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(a, b), nn.Tanh()]
    net = nn.Sequential(*layers[:-1]).to(device, dtype)
    points = torch.rand(n_points, 2, dtype=dtype, device=device)
    parameters = list(net.parameters())
    rows = []
    for name in QUANTITIES:
        calls = ways(net, points, name)
        exact = calls["nested"]().detach()
        for way, call in calls.items():
            miss = float((call().detach() - exact).abs().max() / exact.abs().max())
            assert miss < (1e-3 if dtype == torch.float32 else 1e-10), f"{way} misses {name} by {miss:.1e}"

            def whole(call: Callable[[], Tensor] = call) -> object:
                return step(call(), parameters)

            rows.append((name, way, seconds(whole, device, repetitions)))
            if device.type == "cuda" and way == "taylor":
                rows.append((name, "taylor, CUDA graph", seconds(captured(whole), device, repetitions)))
    return rows


def table(device: torch.device, n_points: int, repetitions: int) -> str:
    """Milliseconds, and in brackets how many times the Taylor engine's, as a Markdown table."""
    lines = ["| | " + " | ".join(QUANTITIES) + " |", "| --- |" + " --- |" * len(QUANTITIES)]
    for dtype in (torch.float32, torch.float64):
        rows = measure(device, dtype, n_points, repetitions)
        taylor = {name: t for name, way, t in rows if way == "taylor"}
        for way in dict.fromkeys(way for _, way, _ in rows):
            times = {name: t for name, w, t in rows if w == way}
            cells = [f"{1e3 * times[q]:.3g} ({times[q] / taylor[q]:.2f})" if q in times else "" for q in QUANTITIES]
            lines.append(f"| {way}, {str(dtype).removeprefix('torch.')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=N_POINTS)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(table(torch.device(given.device), given.points, given.repetitions))


if __name__ == "__main__":
    main()
