"""The moving average of a network's weights while it trains."""

from typing import Any


class MovingAverage:
    """The exponential moving average of a model's trained weights (Polyak and Juditsky 1992).

    It begins as a plain mean and forgets more slowly with every step, until `decay` is reached (Tarvainen and
    Valpola 2017): otherwise a short training would never leave the weights that it began with.
    """

    def __init__(self, model: Any, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in _trained(model)}

    def update(self, model: Any, *, step: int) -> None:
        """Move every value towards the weight as it is after optimiser step `step`, counted from 1."""
        import torch

        share = max(1 - self.decay, 1 / step)
        with torch.no_grad():
            for name, p in _trained(model):
                self.values[name] = self.values[name].to(p.device).lerp_(p, share)

    def put_into(self, model: Any) -> None:
        """The model's trained weights become the average."""
        import torch

        with torch.no_grad():
            for name, p in _trained(model):
                p.copy_(self.values[name])


def _trained(model: Any) -> list[tuple[str, Any]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]
