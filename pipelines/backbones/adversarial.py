"""Training on the worst small change: of the input embeddings (FGM) or of the weights (AWP)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TINY = 1e-12


class EmbeddingAttack:
    """Moves every row's input embeddings by a step of norm `size` along the gradient (Miyato et al. 2017).

    The embeddings are changed as they leave their layer, so it works with frozen embeddings too. They are not
    normalised first, as the paper does for embeddings trained from nothing. Where the layer is called several times
    (two texts per row, two passes), each call has its own step.
    """

    def __init__(self, model: Any, size: float) -> None:
        self.layer, self.size = model.get_input_embeddings(), size
        self.steps: list[Any] = []

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Inside, forward and backward run as ever; afterwards the steps are known."""
        seen: list[Any] = []

        def keep(layer: Any, args: Any, output: Any) -> Any:
            if output.requires_grad:
                output.retain_grad()
            else:
                output = output.detach().requires_grad_()
            seen.append(output)
            return output

        handle = self.layer.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()
        self.steps = [self._step(output.grad.float()) for output in seen]

    @contextmanager
    def apply(self) -> Iterator[None]:
        """Inside, the same calls of the layer give embeddings that are a step away."""
        steps = iter(self.steps)

        def move(layer: Any, args: Any, output: Any) -> Any:
            return output + next(steps).to(output.dtype)

        handle = self.layer.register_forward_hook(move)
        try:
            yield
        finally:
            handle.remove()
            self.steps = []

    def _step(self, gradient: Any) -> Any:
        norm = gradient.flatten(1).norm(dim=1).clamp_min(TINY)
        return self.size * gradient / norm.view(-1, *[1] * (gradient.ndim - 1))


class WeightAttack:
    """Moves every trained matrix along its gradient, by `size` of its own norm (Wu et al. 2020).

    The gradient is that gathered so far in this optimiser step; biases and norms stay.
    """

    def __init__(self, model: Any, size: float) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        self.size = size

    @contextmanager
    def apply(self) -> Iterator[None]:
        """Inside, the weights are a step away; afterwards they are what they were, bit for bit."""
        import torch

        moved = [p for p in self.parameters if p.grad is not None]
        before = [p.detach().clone() for p in moved]
        try:  # from here on: moving them may run out of memory half-way
            with torch.no_grad():
                for p in moved:
                    p.add_(p.grad, alpha=float(self.size * p.norm() / p.grad.norm().clamp_min(TINY)))
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(moved, before, strict=True):
                    p.copy_(value)
