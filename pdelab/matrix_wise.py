"""First-order optimisers that look at the weights of a layer as a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pdelab.optimise import AbstractLoss, AbstractOptimizer


class MatrixWise(AbstractOptimizer):
    """SOAP or Muon, from the package pytorch-optimizer.

    SOAP is Adam in the eigenbases of the averages of G G' and G' G, where G is the gradient of a matrix; the
    bases are renewed every second step, in single precision (each is orthogonal to about 1e-7, whatever the
    dtype of the parameters). Its first step only measures G.

    Muon moves each hidden matrix by the orthogonal factor of its averaged gradient; the first and the last
    matrix and everything that is no matrix go by Adam. The factor is computed in bfloat16 whatever the dtype
    of the parameters: singular values come out as 0.7 to 1.2, and directions weaker than about 1/100 of the
    strongest are noise. Steps are as long as the learning rate at any gradient, so the loss settles only as
    far as the rate falls: use a schedule.

    Neither has weight decay. Where there are no matrices both are Adam.

    Args:
        parts: the parameters in their shapes, in the order of the layers.
        kind: "soap" or "muon".

    Sources: N. Vyas et al., SOAP, ICLR 2025; S. Wang et al., arXiv:2502.00604 (settings in PINNs); K. Jordan
    et al., Muon, 2024; J. Liu et al., arXiv:2502.16982 (one learning rate for both parts).
    """

    quasi_newton = False
    reads = False

    def __init__(self, parts: Sequence[Tensor], kind: str):
        import pytorch_optimizer  # here, because it takes most of a second

        self._parts = parts
        self._optimizer: torch.optim.Optimizer
        if kind == "soap":
            self._optimizer = pytorch_optimizer.SOAP(
                parts, betas=(0.99, 0.99), weight_decay=0.0, precondition_frequency=2
            )
        else:
            hidden = [i for i, part in enumerate(parts) if part.ndim == 2][1:-1]
            matrices = [parts[i] for i in hidden]
            others = [part for i, part in enumerate(parts) if i not in hidden]
            groups = [{"params": matrices, "use_muon": True}, {"params": others, "use_muon": False}]
            self._optimizer = pytorch_optimizer.Muon([g for g in groups if g["params"]], use_adjusted_lr=True)

    def step(self, loss: AbstractLoss, learning_rate: float) -> str:
        """See `AbstractOptimizer.step`; never stops by itself."""
        # A copy: Muon overwrites the gradient, and the evaluation is kept.
        pieces = loss().gradient.clone().split([part.numel() for part in self._parts])
        for part, piece in zip(self._parts, pieces, strict=True):
            part.grad = piece.view(part.shape)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        for part in self._parts:
            part.grad = None
        for state in self._optimizer.state.values():
            # A checkpoint forgets the order of entries in memory, and the last bits of a product depend on it.
            if "Q" in state:
                state["Q"] = [Q.contiguous() if isinstance(Q, Tensor) else Q for Q in state["Q"]]
        return ""

    def restart(self) -> None:
        """Nothing: averages of gradients outlive a change of the points."""

    def state_dict(self) -> dict[str, Any]:
        """See `AbstractOptimizer.state_dict`."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `AbstractOptimizer.load_state_dict`."""
        self._optimizer.load_state_dict(state)
