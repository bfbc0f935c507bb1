"""Small networks from coordinates to fields, and the maps of coordinates in front of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from pdelab.pde import AbstractProblem, Condition, Periodic
from pdelab.taylor import once

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sin": torch.sin,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
}


def embeddable(condition: Condition) -> TypeGuard[Periodic]:
    """Whether cosines and sines meet it: they continue every derivative, too much where values alone are periodic."""
    return isinstance(condition, Periodic) and condition.order > 1


class InputEmbedding(nn.Module):
    """Coordinates to network inputs: each axis scaled to [-1, 1]; a periodic axis becomes cos and sin.

        2 (x - lower)/(upper - lower) - 1     or     cos, sin of 2 pi (x - lower)/(upper - lower)

    Whatever follows a periodic axis is periodic with all its derivatives; an axis with periodic values but free
    slopes is scaled like the others.

    Args:
        problem: whose bounds, times and periodic conditions are taken.
        periodic: False scales the periodic axes like the others.
        waves: cosines and sines of 1 to so many periods.
    """

    lower: Tensor
    side: Tensor

    def __init__(self, problem: AbstractProblem, periodic: bool = True, waves: int = 1):
        super().__init__()
        self._waves = waves
        lower, upper = problem.domain.bounds
        if problem.time:
            lower, upper = np.append(lower, problem.time[0]), np.append(upper, problem.time[1])
        self.register_buffer("lower", torch.as_tensor(lower))
        self.register_buffer("side", torch.as_tensor(upper - lower))
        closed = {c.axis for c in problem.conditions() if periodic and embeddable(c)}
        self._periodic = [i for i, axis in enumerate(problem.axes) if axis in closed]
        self._plain = [i for i, axis in enumerate(problem.axes) if axis not in closed]
        self.n_outputs = len(self._plain) + 2 * waves * len(self._periodic)

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, n_outputs)."""
        share = (x - self.lower) / self.side
        if not self._periodic:
            return 2.0 * share - 1.0
        angle = 2.0 * math.pi * share[:, self._periodic]
        angles = [k * angle for k in range(1, self._waves + 1)]
        circles = [f(a) for f in (torch.cos, torch.sin) for a in angles]
        return torch.cat([2.0 * share[:, self._plain] - 1.0, *circles], dim=1)

    def columns(self) -> list[list[int]]:
        """Which outputs belong to each axis: one, or two for a period."""
        m, p = len(self._plain), len(self._periodic)
        own = {axis: [i] for i, axis in enumerate(self._plain)}
        own |= {axis: [m + i, m + p + i] for i, axis in enumerate(self._periodic)}
        return [own[axis] for axis in range(m + p)]

    def places(self, outputs: Tensor) -> Tensor:
        """Points (n, d) with these outputs (n, n_outputs), or with those next to them on the circles."""
        m, p = len(self._plain), len(self._periodic)
        share = outputs.new_empty(len(outputs), m + p)
        share[:, self._plain] = 0.5 * (outputs[:, :m] + 1.0)
        angle = torch.atan2(outputs[:, m + p :], outputs[:, m : m + p])
        share[:, self._periodic] = torch.remainder(angle / (2.0 * math.pi), 1.0)
        return self.lower + share * self.side

    def lengths(self, along: Tensor) -> Tensor:
        """Small lengths along the axes scaled to [-1, 1], (d,), as those of the outputs: a period 2 is 2 pi there."""
        around = math.pi * along[self._periodic]
        return torch.cat([along[self._plain], around, around])


class MLP(nn.Module):
    """Fully connected layers: h <- phi(W h + b), linear at the end; Glorot weights, zero biases.

    Args:
        n_in: inputs.
        n_out: outputs.
        width: units of each hidden layer.
        depth: hidden layers, at least 1.
        activation: phi, elementwise and smooth.
    """

    def __init__(self, n_in: int, n_out: int, width: int, depth: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        sizes = [n_in, *[width] * depth, n_out]
        self.layers = nn.ModuleList(_glorot(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self._activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in) -> (n, n_out)."""
        for layer in self.layers[:-1]:
            x = self._activation(layer(x))
        return self.layers[-1](x)

    @property
    def head(self) -> nn.Module:
        """The last layer, in which the output is linear."""
        return self.layers[-1]


class ModifiedMLP(nn.Module):
    """Layers that mix two encodings U, V of the input.

        h <- (1 - z) U + z V,   z = phi(W h + b),   U = phi(W_u x + b_u),   V = phi(W_v x + b_v)

    The first h is phi(W x + b), the end linear. Arguments as in `MLP`.

    Source: S. Wang, Y. Teng, P. Perdikaris, SIAM J. Sci. Comput. 43 (2021) A3055-A3081, eq. 43 to 47.
    """

    def __init__(self, n_in: int, n_out: int, width: int, depth: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.encoders = nn.ModuleList(_glorot(n_in, width) for _ in range(2))
        sizes = [n_in, *[width] * depth, n_out]
        self.layers = nn.ModuleList(_glorot(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self._activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in) -> (n, n_out)."""
        u, v = (self._activation(encoder(x)) for encoder in self.encoders)
        h = self._activation(self.layers[0](x))
        for layer in self.layers[1:-1]:
            h = torch.lerp(u, v, self._activation(layer(h)))
        return self.layers[-1](h)

    @property
    def head(self) -> nn.Module:
        """The last layer, in which the output is linear."""
        return self.layers[-1]


class FourierMLP(nn.Module):
    """An MLP on random Fourier features [cos(2 pi B x), sin(2 pi B x)]; B is normal, drawn once and fixed.

    Other arguments as in `MLP`.

    Args:
        scale: standard deviation of the entries of B, in periods per half axis; 1 to 10 are useful.

    Source: M. Tancik et al., NeurIPS 2020, section 4.
    """

    frequencies: Tensor

    def __init__(
        self, n_in: int, n_out: int, width: int, depth: int, activation: Callable[[Tensor], Tensor], scale: float
    ):
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(max(1, width // 2), n_in))
        self.mlp = MLP(2 * len(self.frequencies), n_out, width, depth, activation)

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in) -> (n, n_out)."""
        angle = 2.0 * math.pi * x @ self.frequencies.T
        return self.mlp(torch.cat([torch.cos(angle), torch.sin(angle)], dim=1))

    @property
    def head(self) -> nn.Module:
        """See `MLP.head`."""
        return self.mlp.head


class Siren(nn.Module):
    """Sine layers h <- sin(omega (W h + b)), linear at the end.

    Weights are uniform: within 1/n_in in the first layer, within sqrt(6/width)/omega in the others, so that
    every layer sees inputs of the same spread.

    Args:
        n_in: inputs.
        n_out: outputs.
        width: units of each hidden layer.
        depth: hidden layers, at least 1.
        omega: frequency; 30 for images, 1 to 10 for smooth fields.

    Source: V. Sitzmann et al., NeurIPS 2020, section 3.2.
    """

    def __init__(self, n_in: int, n_out: int, width: int, depth: int, omega: float):
        super().__init__()
        sizes = [n_in, *[width] * depth, n_out]
        layers = [nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        self.layers = nn.ModuleList(layers)
        self._omega = omega
        for i, layer in enumerate(layers):
            bound = 1.0 / n_in if i == 0 else math.sqrt(6.0 / width) / omega
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in) -> (n, n_out)."""
        for layer in self.layers[:-1]:
            x = torch.sin(self._omega * layer(x))
        return self.layers[-1](x)

    @property
    def head(self) -> nn.Module:
        """The last layer, in which the output is linear."""
        return self.layers[-1]


class NetworkField(nn.Module):
    """An embedding and a network as a field, (n, d) -> (n, m); points are brought to its dtype and device."""

    def __init__(self, embedding: InputEmbedding, network: nn.Module):
        super().__init__()
        self.embedding, self.network = embedding, network

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, m)."""
        return self.network(once(x, self.embedding, lambda x: self.embedding(x.to(self.embedding.lower.dtype))))


def _glorot(n_in: int, n_out: int) -> nn.Linear:
    layer = nn.Linear(n_in, n_out)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
