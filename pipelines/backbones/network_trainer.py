"""A Trainer with our batches, loss and switches, that goes on in smaller pieces where memory runs out."""

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from competition.errors import Fault
from pipelines.backbones.adversarial import EmbeddingAttack, WeightAttack
from pipelines.backbones.averaging import MovingAverage
from pipelines.backbones.checkpoints import notes_of
from pipelines.backbones.evaluation import BestWeights, Labelled
from pipelines.backbones.loader import LABELS, WEIGHTS, collator, epoch_loader
from pipelines.backbones.losses import FiniteLoss, loss_of
from pipelines.backbones.scoring import Logits
from pipelines.backbones.sharding import n_processes, share_out_on_cpu
from pipelines.memory import MemoryShortageError, SmallerPiecesError, first_line, free_memory, out_of_memory
from pipelines.sections import TrainingSection
from pipelines.tokens import TrainingBatches

log = logging.getLogger(__name__)

EMA = "ema.safetensors"
ROWS, SHARE = "rows", "share"  # in what the Trainer hands out; of a piece, its share in its batch's rows
SMALLER_NETWORK = (
    "set training.gradient_checkpointing = true, a smaller max_length, training.lora or training.quantize, or train a "
    "smaller network; or use a machine with more memory"
)


def network_trainer() -> Any:
    """The class `NetworkTrainer`, a Trainer of transformers, which is imported here."""
    from safetensors.torch import load_file, save_file
    from transformers import Trainer, TrainerCallback

    class UpdateAverage(TrainerCallback):  # type: ignore[misc]
        def __init__(self, average: MovingAverage) -> None:
            self.average = average

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            self.average.update(model, step=state.global_step)

    class NetworkTrainer(Trainer):  # type: ignore[misc]
        """The Trainer with our batches, loss, switches, and pieces where memory runs out.

        A batch is computed in `pieces`, whose losses are weighted by their share of its rows: the gradient is that of
        the whole batch (dropout draws other masks), so the optimiser sees the same batches, learning rates and steps.
        Where memory runs out the pieces double, for good, and the batches of the optimiser step that was under way are
        all computed again, from no gradient. What is cut is row numbers, before anything is padded or packed, so it
        works for all kinds of `Inputs`. The Trainer therefore hands out row numbers, not tensors.
        """

        def __init__(
            self, training: TrainingSection, logits: Logits, rows: Labelled, *, model: Any, **kwargs: Any
        ) -> None:
            super().__init__(model=model, **kwargs)
            self.model_accepts_loss_kwargs = False  # our loss is a batch's mean; the Trainer divides by `accumulate`
            self.training, self.logits, self.lengths = training, logits, rows.inputs.lengths
            self.collate, self.pieces, self.losses = collator(rows), 1, FiniteLoss()
            self.begun: list[np.ndarray] = []  # rows of the batches of this optimiser step
            self.best: BestWeights | None = None
            self.average = MovingAverage(model, training.ema) if training.ema else None
            if self.average is not None:
                self.add_callback(UpdateAverage(self.average))
            self.fgm = EmbeddingAttack(model, training.fgm) if training.fgm else None
            self.awp = WeightAttack(model, training.awp) if training.awp else None

        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            if self.args.fsdp and getattr(self.accelerator.state, "fsdp_plugin", None) is None:
                share_out_on_cpu(self.accelerator, self.args.fsdp_plugin_args)
                self.is_fsdp_enabled = True

        def get_train_dataloader(self) -> Any:
            batches = TrainingBatches(
                self.lengths,
                self.args.per_device_train_batch_size,
                self.args.seed,
                tokens_per_batch=self.training.tokens_per_batch,
                rank=self.args.process_index,
                world=self.args.world_size,
            )
            return epoch_loader(len(self.lengths), batches, lambda rows: {ROWS: rows})

        def floating_point_ops(self, inputs: Any) -> int:
            return 0  # nobody asks, and counting walks over all parameters

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            self.begun.append(inputs[ROWS])
            todo = self.begun[-1:]
            while True:
                try:
                    loss = [self._gradients(model, rows) for rows in todo][-1]
                    break
                except (MemoryError, RuntimeError) as error:
                    if not out_of_memory(error):
                        raise
                    cause = first_line(error)
                self._halve(cause)  # here the exception is gone, which holds on to the activations
                model.zero_grad()
                free_memory()
                todo = self.begun
            if self.accelerator.sync_gradients:
                self.begun = []
            self.losses.see(loss, step=self.state.global_step + 1)
            return loss

        def _gradients(self, model: Any, rows: np.ndarray) -> Any:
            """Add the gradients of a batch; gives its loss, as far as it is a part of the optimiser step's."""
            parts = [part for part in np.array_split(rows, self.pieces) if len(part)]
            batches = [{**self.collate(part), SHARE: len(part) / len(rows)} for part in parts]
            loss = sum(self._piece_gradients(model, batch) for batch in batches)
            if self.awp is not None:
                with self.awp.apply():
                    for batch in batches:
                        super().training_step(model, batch)
            return loss

        def _piece_gradients(self, model: Any, batch: dict[str, Any]) -> Any:
            with self.fgm.watch() if self.fgm else nullcontext():
                loss = super().training_step(model, batch)
            if self.fgm is not None:
                with self.fgm.apply():
                    super().training_step(model, batch)
            return loss

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            batch = {name: values for name, values in inputs.items() if name not in (LABELS, WEIGHTS, SHARE)}
            passes = [self.logits(model, batch) for _ in range(2 if self.training.r_drop else 1)]
            return inputs[SHARE] * loss_of(passes, inputs[LABELS], self.training, weights=inputs.get(WEIGHTS))

        def _halve(self, cause: str) -> None:
            step, largest = self.state.global_step + 1, max(map(len, self.begun))
            fault = Fault(f"step {step}, {largest} rows in {self.pieces} pieces", cause)
            if self.pieces >= largest:
                raise MemoryShortageError("the memory does not hold one row's activations", faults=[fault],
                                          advice=SMALLER_NETWORK)  # fmt: skip
            if n_processes() > 1:
                raise SmallerPiecesError("the memory does not hold a batch's activations", faults=[fault])
            self.pieces *= 2
            log.warning(
                "out of memory at step %d: from here on a batch is computed in %d pieces; its rows, the steps and the "
                "learning rates stay (%s)", step, self.pieces, cause,
            )  # fmt: skip

        def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
            step, last = self.state.global_step, self.state.global_step >= self.state.max_steps
            if self.control.should_log or self.control.should_save or last or self.args.device.type == "cpu":
                self.losses.refuse_bad(learning_rate=self.training.learning_rate)
            if self.best is not None:
                steps = self.state.max_steps / self.args.num_train_epochs
                self.best.see(step, steps_per_epoch=steps, first=self.is_world_process_zero())
            super()._maybe_log_save_evaluate(*args, **kwargs)

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            super().save_model(output_dir, _internal_call)
            if not self.args.should_save:
                return
            folder = Path(output_dir or self.args.output_dir)
            if self.average is not None:
                save_file(self.average.values, folder / EMA)
            if self.best is not None:
                self.best.copy_to(folder)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            folder = Path(resume_from_checkpoint)
            self.pieces = max(self.pieces, notes_of(folder)["pieces"])
            if self.average is not None:
                self.average.values = load_file(folder / EMA)
            if self.best is not None:
                self.best.go_on_from(folder, first=self.is_world_process_zero())

    return NetworkTrainer
