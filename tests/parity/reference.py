"""What PyTorch eager does with the same model, data, scheme and optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

Part = tuple[int, tuple[int, ...]]
"""An axis and the indices along it that are trained."""

OPTIMIZERS: dict[str, Callable[[list[Tensor], dict[str, float]], torch.optim.Optimizer]] = {
    "sgd": lambda p, kw: torch.optim.SGD(p, **kw),
    "adam": lambda p, kw: torch.optim.Adam(p, **kw),
    "adamw": lambda p, kw: torch.optim.AdamW(p, **kw),
    "rmsprop": lambda p, kw: torch.optim.RMSprop(p, **kw),
    "adagrad": lambda p, kw: torch.optim.Adagrad(p, **kw),
    "adafactor": lambda p, kw: torch.optim.Adafactor(p, **kw),
}


class Lion(torch.optim.Optimizer):
    """Sign of an interpolated momentum (Chen et al., 2023, algorithm 2)."""

    def __init__(
        self,
        params: list[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                u = torch.sign(b1 * m + (1 - b1) * p.grad)
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * u)
                m.mul_(b2).add_(p.grad, alpha=1 - b2)


OPTIMIZERS["lion"] = lambda p, kw: Lion(p, **kw)


class EagerTrainer:
    """Trains some tensors, or some channels of them, of a model in inference mode."""

    def __init__(
        self,
        model: nn.Module,
        trained: Mapping[str, Part | None],
        optimizer: Mapping[str, object],
        clip_norm: float | None = None,
    ) -> None:
        """Take the tensors to train by name, None for all of one."""
        self.model = model.eval()
        self.trained, self.clip_norm = trained, clip_norm
        self.whole = {n: p.detach().clone() for n, p in model.named_parameters()}
        self.leaves = {
            n: _take(self.whole[n], part).clone().requires_grad_()
            for n, part in trained.items()
        }
        options = dict(optimizer)
        make = OPTIMIZERS[str(options.pop("name"))]
        self.optimizer = make(list(self.leaves.values()), options)  # type: ignore[arg-type]

    def parameters(self) -> dict[str, Tensor]:
        """Return all parameters, with the present values of what is trained put in."""
        merged = dict(self.whole)
        for name, part in self.trained.items():
            leaf = self.leaves[name]
            if part is None:
                merged[name] = leaf
            else:
                axis, indices = part
                merged[name] = self.whole[name].index_copy(axis, torch.tensor(indices), leaf)
        return merged

    def step(self, *batch: Tensor) -> float:
        """Do one step of training; return the loss."""
        *inputs, target = batch
        logits = functional_call(self.model, self.parameters(), tuple(inputs))
        loss = functional.cross_entropy(logits.flatten(0, -2), target.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip_norm:
            nn.utils.clip_grad_norm_(list(self.leaves.values()), self.clip_norm)
        self.optimizer.step()
        return float(loss.detach())

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all parameters as arrays."""
        return {n: p.detach().numpy().copy() for n, p in self.parameters().items()}


def _take(tensor: Tensor, part: Part | None) -> Tensor:
    return tensor if part is None else tensor.index_select(part[0], torch.tensor(part[1]))


def arrays(batch: Sequence[Tensor]) -> list[np.ndarray]:
    """Return a batch as arrays."""
    return [t.numpy() for t in batch]
