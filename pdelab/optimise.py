"""Optimisers on one flat parameter vector, with one step at a time and a reason when they stop."""

from __future__ import annotations

import abc
import functools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from pdelab.errors import SettingsError

OPTIMIZERS = (
    *("adam", "adamw", "soap", "muon", "lbfgs", "ssbfgs", "ssbroyden"),
    *("gauss-newton", "variable-projection", "spring"),
)
STOP_REASONS = {
    "gradient": "the gradient is below its tolerance",
    "function": "the loss no longer changes",
    "line search": "no step along the steepest descent lowers the loss",
}
_MAX_LINE_SEARCH = 25
_SCALE = 1e6


def check_memory(what: str, n_bytes: float, way_out: str) -> None:
    """Refuse a dense method that needs more than three quarters of the machine's memory.

    Raises:
        SettingsError: with the need, what there is, and the way out.
    """
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > 0.75 * there:
        raise SettingsError(f"{what} needs {n_bytes / 2**30:.1f} GiB of {there / 2**30:.1f} GiB memory; {way_out}")


class FlatParameters:
    """The parameters of a model as one vector that shares their memory, until `release`.

    Args:
        parameters: of one dtype and device.
        linear: those of them in which the residuals' field is linear, if an optimiser asks for them.

    Raises:
        SettingsError: there are none, they differ in dtype or device, or those of `linear` are not among them.
    """

    def __init__(self, parameters: Iterable[Tensor], linear: Iterable[Tensor] = ()):
        self.parts = list(parameters)
        if not self.parts or len({(p.dtype, p.device) for p in self.parts}) > 1:
            kinds = sorted({f"{p.dtype} on {p.device}" for p in self.parts})
            raise SettingsError(f"parameters: expected some, all of one dtype and device, got {kinds or 'none'}")
        wanted = {id(p) for p in linear}
        if wanted - {id(p) for p in self.parts}:
            raise SettingsError("linear: expected some of the parameters that are trained, got others")
        self.linear = torch.cat([torch.full((p.numel(),), id(p) in wanted, device=p.device) for p in self.parts])
        self.vector = torch.nn.Parameter(torch.cat([p.detach().reshape(-1) for p in self.parts]))
        pieces = self.vector.data.split([p.numel() for p in self.parts])
        for part, piece in zip(self.parts, pieces, strict=True):
            part.data = piece.view(part.shape)

    def gradient(self, loss: Tensor, keep_graph: bool = False) -> Tensor:
        """Gradient of a scalar in all parameters, (P,); zero for those that it does not depend on."""
        found = torch.autograd.grad(loss, self.parts, retain_graph=keep_graph, allow_unused=True)
        both = zip(found, self.parts, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in both])

    def set(self, values: Tensor) -> None:
        """Overwrite all parameters."""
        with torch.no_grad():
            self.vector.copy_(values)

    def release(self) -> None:
        """Give every parameter memory of its own again."""
        for part in self.parts:
            part.data = part.data.clone()


class Evaluation:
    """The loss at one parameter vector; its numbers stay on the device until one is asked for.

    Args:
        at: the parameters, (P,).
        names: of the terms.
        values: the loss, and each term unweighted, (1 + terms,).
        gradient: of the loss, (P,).
    """

    def __init__(self, at: Tensor, names: Sequence[str], values: Tensor, gradient: Tensor):
        self.at, self.gradient, self.values = at, gradient, values
        self.names = tuple(names)

    @classmethod
    def known(cls, at: Tensor, loss: float, gradient: Tensor) -> Evaluation:
        """One of a loss without terms, whose value is at hand."""
        return cls(at, (), torch.tensor([loss], dtype=torch.float64), gradient)

    @functools.cached_property
    def _numbers(self) -> list[float]:
        return self.values.tolist()

    @property
    def loss(self) -> float:
        """The weighted sum of the terms."""
        return self._numbers[0]

    @property
    def terms(self) -> dict[str, float]:
        """Each term, unweighted."""
        return dict(zip(self.names, self._numbers[1:], strict=True))

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are free of nan and inf."""
        return math.isfinite(self.loss) and bool(torch.isfinite(self.gradient).all())


class AbstractLoss(abc.ABC):
    """The weighted loss at the present parameter vector, in as much detail as an optimiser asks for."""

    @abc.abstractmethod
    def __call__(self) -> Evaluation:
        """With its gradient."""

    @abc.abstractmethod
    def value(self) -> float:
        """The number alone."""

    @abc.abstractmethod
    def rows(self) -> tuple[Tensor, Tensor]:
        """A vector r (n,) and its Jacobian (n, P): the loss is |r|^2.

        Raises:
            SettingsError: the loss is no sum of squares.
        """

    @abc.abstractmethod
    def residual(self) -> Tensor:
        """The vector of `rows` alone, without a graph.

        Raises:
            SettingsError: the loss is no sum of squares.
        """

    @abc.abstractmethod
    def row_blocks(self, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The same rows in one block if they are at most `most`, else in smaller ones: J never exists as a whole.

        Raises:
            SettingsError: the loss is no sum of squares.
        """


class AbstractOptimizer(abc.ABC):
    """Changes the parameter vector, one step at a time."""

    quasi_newton: ClassVar[bool]
    """Whether it learns from differences of gradients, which only one unchanged loss function gives."""

    by_rows: ClassVar[bool] = False
    """Whether a step asks for residual vectors rather than for the gradient."""

    reads: ClassVar[bool] = True
    """Whether a step decides by the value of the loss, which must then leave the device."""

    @abc.abstractmethod
    def step(self, loss: AbstractLoss, learning_rate: float) -> str:
        """One step. Returns a key of `STOP_REASONS`, or ''."""

    @abc.abstractmethod
    def restart(self) -> None:
        """Forget what belongs to a loss function that is no more."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""

    @abc.abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


class FirstOrder(AbstractOptimizer):
    """Adam or AdamW."""

    quasi_newton = False
    reads = False

    def __init__(self, vector: torch.nn.Parameter, kind: str):
        self._vector = vector
        self._optimizer = (torch.optim.AdamW if kind == "adamw" else torch.optim.Adam)([vector])

    def step(self, loss: AbstractLoss, learning_rate: float) -> str:
        """See `AbstractOptimizer.step`; never stops by itself."""
        self._vector.grad = loss().gradient
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.step()
        return ""

    def restart(self) -> None:
        """Nothing: averages of gradients outlive a change of the points."""

    def state_dict(self) -> dict[str, Any]:
        """See `AbstractOptimizer.state_dict`."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `AbstractOptimizer.load_state_dict`."""
        self._optimizer.load_state_dict(state)


class LBFGS(AbstractOptimizer):
    """Limited-memory BFGS with a strong Wolfe line search; use float64.

    The loss is scaled so that it starts at 1e6: torch drops curvature pairs with y.s < 1e-10, an absolute
    threshold that a well trained network would otherwise fall below.

    Args:
        vector: what is optimised.
        history_size: curvature pairs kept.
        gradient_tolerance: stop when max |gradient| is at most this (in units of the loss).
        function_tolerance: stop when a step lowers the loss by at most this, relative to the loss.

    Source: Nocedal & Wright, Numerical Optimization, 2nd ed. 2006, algorithms 7.4 and 7.5.
    """

    quasi_newton = True

    def __init__(
        self,
        vector: torch.nn.Parameter,
        history_size: int,
        gradient_tolerance: float,
        function_tolerance: float,
    ):
        self._vector = vector
        self._history_size = history_size
        self._gradient_tolerance = gradient_tolerance
        self._function_tolerance = function_tolerance
        self.restart()

    def restart(self) -> None:
        """Forget all curvature pairs."""
        self._scale = 0.0
        # The tolerances of torch are absolute and unnamed; step() judges instead.
        self._optimizer = torch.optim.LBFGS(
            [self._vector],
            max_iter=1,
            max_eval=_MAX_LINE_SEARCH + 1,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            history_size=self._history_size,
            line_search_fn="strong_wolfe",
        )

    def step(self, loss: AbstractLoss, learning_rate: float) -> str:
        """See `AbstractOptimizer.step`; the learning rate scales the first trial step."""
        before = loss()
        if before.gradient.abs().max() <= self._gradient_tolerance:
            return "gradient"
        fresh = not self._scale
        self._scale = self._scale or _SCALE / max(abs(before.loss), 1e-300)

        def closure() -> Tensor:
            now = loss()
            # A large flat value makes the line search shorten its step; inf would make its interpolation nan.
            value = now.loss * self._scale if now.finite else before.loss * self._scale + 10.0 * _SCALE
            self._vector.grad = now.gradient * self._scale if now.finite else torch.zeros_like(now.gradient)
            return torch.tensor(value, dtype=torch.float64)

        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.step(closure)
        after = loss()
        if after.finite and after.loss < before.loss:
            small = before.loss - after.loss <= self._function_tolerance * abs(before.loss)
            return "function" if small else ""
        moved = not torch.equal(after.at, before.at)
        if moved and after.loss == before.loss:
            return "function"
        with torch.no_grad():
            self._vector.copy_(before.at)
        if fresh:
            return "line search"
        self.restart()
        return self.step(loss, learning_rate)

    def state_dict(self) -> dict[str, Any]:
        """See `AbstractOptimizer.state_dict`."""
        return {"scale": self._scale, "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `AbstractOptimizer.load_state_dict`."""
        self._scale = state["scale"]
        self._optimizer.load_state_dict(state["optimizer"])
