"""The loss of a batch, and how a loss that is no number any more is noticed before it spoils the weights on disk."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from competition.errors import CompetitionError, Fault
from pipelines.sections import TrainingSection

TO_TRY = (
    "lower the learning rate to a third or a tenth, or warm up for longer; if that does not help, compute in fp32 "
    '(training.precision = "fp32"). A changed recipe begins anew, without the checkpoints of this one'
)


class DivergedError(CompetitionError):
    """A training whose loss or weights are no numbers any more."""

    exit_code: ClassVar[int] = 1


def loss_of(outputs: Sequence[Any], labels: Any, training: TrainingSection, *, weights: Any = None) -> Any:
    """The loss of one batch: cross-entropy, and with R-Drop the divergence of two passes.

    Parameters
    ----------
    outputs
        Logits of one pass, or of two with R-Drop; ``(n_rows, 2)``, or ``(n_masks, n_rows, 2)`` with several
        dropout masks, whose losses are averaged.
    labels
        ``(n_rows,)``: 0 or 1, or floats between them, the probability of label 1 that is learnt towards.
    weights
        ``(n_rows,)``: what a row's loss is multiplied by before the mean; 1 if left out.
    """
    import torch
    from torch.nn import functional

    passes = [output.float().reshape(-1, 2) for output in outputs]
    n_masks = len(passes[0]) // len(labels)
    wanted = torch.stack([1 - labels, labels], dim=-1) if labels.is_floating_point() else labels
    wanted = torch.cat([wanted] * n_masks)

    def mean(of: Callable[..., Any], first: Any, second: Any, whole: str, **settings: Any) -> Any:
        """The mean of a loss over the rows, each times its weight."""
        if weights is None:
            return of(first, second, reduction=whole, **settings)
        by_row = of(first, second, reduction="none", **settings).reshape(len(first), -1).sum(dim=-1)
        return (by_row * weights.repeat(n_masks)).mean()

    smoothing = training.label_smoothing
    losses = [mean(functional.cross_entropy, one, wanted, "mean", label_smoothing=smoothing) for one in passes]
    loss = torch.stack(losses).mean()
    if len(passes) == 1:
        return loss
    p, q = (functional.log_softmax(one, dim=-1) for one in passes)
    there, back = (mean(functional.kl_div, *pair, "batchmean", log_target=True) for pair in ((p, q), (q, p)))
    return loss + training.r_drop * (there + back) / 2


class FiniteLoss:
    """Notices a loss that is no number. Seeing one does not wait for a GPU, asking does."""

    def __init__(self) -> None:
        self.first: Any = 0  # the first step whose loss was none

    def see(self, loss: Any, *, step: int) -> None:
        """Look at the loss of step `step`, counted from 1."""
        import torch

        self.first = torch.where(torch.isfinite(loss) | (self.first > 0), self.first, step)

    def refuse_bad(self, *, learning_rate: float) -> None:
        """Check all that was seen.

        Raises
        ------
        DivergedError
            A loss was infinite or no number.
        """
        if step := int(self.first):
            raise DivergedError(
                f"the training diverged: the loss of step {step} is no number",
                faults=[Fault(f"step {step}", f"loss nan or inf at learning rate {learning_rate:.3g}", "a number")],
                advice=TO_TRY,
            )


def refuse_bad_weights(model: Any, *, step: int) -> None:
    """Check the trained weights after step `step`.

    Raises
    ------
    DivergedError
        Some are infinite or no numbers; the first is named.
    """
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        values = values.to_local() if hasattr(values, "to_local") else values  # a share of a sharded network
        if parameter.requires_grad and not bool(values.isfinite().all()):
            fault = Fault(name, f"weights that are no numbers after step {step}", "numbers")
            raise DivergedError("the training diverged", faults=[fault], advice=TO_TRY)
