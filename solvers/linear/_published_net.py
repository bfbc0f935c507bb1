"""The network of the published deep conjugate direction method."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PublishedNet(nn.Module):
    """Convolutions of width 16 on two levels, as published for 64 cells along each axis; R = ReLU(convolution).

    stem (linear);  a = R(stem); b = R(a); a = R(b) + a; b = R(a);  average over 2^d cells;
    three times b = R(a); a = R(b) + a;  nearest neighbour to the fine grid, plus b;  twice b = R(u); u = R(b) + u;
    one number for each cell (linear). 97 457 parameters in space, 32 657 in the plane. Glorot-uniform weights, zero
    padding. Cells beyond an even number are padded with zeros and cut off again.

    Source: Kaneda et al., ICML 2023, model for 64^3.
    """

    def __init__(self, d: int, width: int = 16):
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[d]
        self.pool = {2: nn.AvgPool2d, 3: nn.AvgPool3d}[d](2)
        self.stem = convolution(1, width, 3, padding=1)
        self.before, self.coarse, self.after = (
            nn.ModuleList(convolution(width, width, 3, padding=1) for _ in range(n)) for n in (4, 6, 4)
        )
        self.head = convolution(width, 1, 1)
        for part in self.modules():
            if isinstance(part, convolution):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]

    def forward(self, r: Tensor) -> Tensor:
        """Residuals of norm 1, (k, *shape), to directions."""
        u = r[:, None]
        odd = [p for n in reversed(r.shape[1:]) for p in (0, n % 2)]
        u = nn.functional.pad(u, odd)
        a = torch.relu(self.before[0](self.stem(u)))
        b = torch.relu(self.before[1](a))
        a = torch.relu(self.before[2](b)) + a
        b = torch.relu(self.before[3](a))
        coarse = self.pool(b)
        for first, second in zip(self.coarse[::2], self.coarse[1::2], strict=True):
            coarse = torch.relu(second(torch.relu(first(coarse)))) + coarse
        u = nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest") + b
        for first, second in zip(self.after[::2], self.after[1::2], strict=True):
            u = torch.relu(second(torch.relu(first(u)))) + u
        return self.head(u)[(slice(None), 0, *(slice(0, n) for n in r.shape[1:]))]
