"""Training of transformers: the transformers Trainer with our batches, loss, switches and checkpoints."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from competition.errors import Fault
from pipelines.backbones.adversarial import EmbeddingAttack, WeightAttack
from pipelines.backbones.averaging import MovingAverage
from pipelines.backbones.checkpoints import keep_checkpoints, last_checkpoint, notes_of
from pipelines.backbones.evaluation import BestWeights, Labelled
from pipelines.backbones.loader import LABELS, WEIGHTS, collator, epoch_loader
from pipelines.backbones.losses import FiniteLoss, loss_of, refuse_bad_weights
from pipelines.backbones.packing import laid_out
from pipelines.backbones.protocol import Workspace
from pipelines.backbones.scoring import Logits
from pipelines.backbones.sharding import fsdp_settings, is_sharded, n_processes, share_out_on_cpu
from pipelines.backbones.tensors_only import tensors_only
from pipelines.backbones.vocabulary import trimmed_vocabulary
from pipelines.memory import MemoryShortageError, SmallerPiecesError, first_line, free_memory, out_of_memory
from pipelines.progress import report_progress, steps_shown
from pipelines.sections import TrainingSection
from pipelines.tokens import TrainingBatches
from pipelines.trackers import log_metrics

log = logging.getLogger(__name__)

EMA = "ema.safetensors"
ROWS, SHARE = "rows", "share"  # in what the Trainer hands out; of a piece, its share in its batch's rows
SMALLER_NETWORK = (
    "set training.gradient_checkpointing = true, a smaller max_length, training.lora or training.quantize, or train a "
    "smaller network; or use a machine with more memory"
)
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class Trained:
    """What there is to say of a training.

    Attributes
    ----------
    evaluations
        Step, F1 at the best threshold, AUC, log loss.
    pieces
        In how many pieces a batch was computed in the end.
    """

    evaluations: tuple[Mapping[str, float], ...] = ()
    pieces: int = 1


def train_network(
    model: Any,
    rows: Labelled,
    *,
    training: TrainingSection,
    workspace: Workspace,
    logits: Logits,
    judged: Labelled | None = None,
) -> Trained:
    """Train `model` in place; a killed training goes on from its last checkpoint in the workspace's scratch folder.

    Where memory runs out in a step, its batches are computed again in smaller pieces, see `NetworkTrainer`.

    Parameters
    ----------
    judged
        Rows that the network is evaluated on as often as `training.evaluate` says.

    Raises
    ------
    DivergedError
        The loss or the weights are no numbers any more.
    MemoryShortageError
        A single row is too much for the memory; with several processes, a batch is: see `pipelines.launch`.
    """
    import torch

    if not training.epochs:
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        return Trained()
    torch.set_num_threads(workspace.threads)
    used = rows.inputs.token_ids() if judged is None else np.union1d(rows.inputs.token_ids(), judged.inputs.token_ids())
    trims_it = training.trim_vocabulary and training.sharding == "ddp"
    trims = trimmed_vocabulary(model, used, pad=rows.inputs.pad) if trims_it else nullcontext()
    with trims as table:
        if table is not None:
            rows = replace(rows, inputs=rows.inputs.renumbered(table))
            judged = judged and replace(judged, inputs=judged.inputs.renumbered(table))
        trainer = make_trainer(model, rows, training=training, workspace=workspace, logits=logits, judged=judged)
        with trainer.args.main_process_first(local=False):  # the first deletes what is not whole
            checkpoint = last_checkpoint(Path(trainer.args.output_dir))
        if checkpoint:
            log.info("going on from %s", checkpoint)
        with tensors_only(checkpoint), steps_shown("training steps"):
            trainer.train(resume_from_checkpoint=checkpoint)
        refuse_bad_weights(model, step=trainer.state.global_step)
        assert is_sharded(model) == bool(trainer.args.fsdp), "shared out where asked for, and nowhere else"
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # else it scores differently until reloaded
        if trainer.average is not None:
            trainer.average.put_into(model)
        if trainer.best is None:
            return Trained(pieces=trainer.pieces)
        trainer.accelerator.wait_for_everyone()
        return Trained(tuple(trainer.best.put_into(model)), trainer.pieces)


def make_trainer(
    model: Any,
    rows: Labelled,
    *,
    training: TrainingSection,
    workspace: Workspace,
    logits: Logits,
    judged: Labelled | None = None,
) -> Any:
    """A transformers Trainer for `model`, not yet started."""
    from transformers import PrinterCallback

    rows = replace(rows, inputs=laid_out(rows.inputs, model))
    trainer = _trainer_class()(
        training,
        logits,
        rows,
        model=model,
        args=training_arguments(training, workspace, model),
        train_dataset=range(len(rows.inputs)),
        callbacks=[_log_progress()],
    )
    trainer.remove_callback(PrinterCallback)  # it would print to stdout
    trainer.pieces = workspace.pieces
    trainer.add_callback(keep_checkpoints(training.checkpoint_minutes, lambda: {"pieces": trainer.pieces}))
    if judged is not None:
        trainer.best = BestWeights(model, judged, training=training, logits=logits, folder=workspace.scratch)
    return trainer


def training_arguments(training: TrainingSection, workspace: Workspace, model: Any) -> Any:
    """The Trainer's arguments for a recipe's training section; checkpoints go to the scratch folder."""
    import torch
    from transformers import TrainingArguments

    scratch = workspace.scratch / "checkpoints"
    scratch.mkdir(parents=True, exist_ok=True)
    arguments = TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=training.epochs,
        learning_rate=training.learning_rate,
        lr_scheduler_type=SCHEDULES[training.schedule],
        per_device_train_batch_size=training.batch_size // n_processes(),
        gradient_accumulation_steps=training.accumulate,
        warmup_steps=training.warmup,
        weight_decay=training.weight_decay,
        bf16=training.half,
        gradient_checkpointing=training.gradient_checkpointing,
        optim="adamw_torch_fused",
        save_strategy="epoch",
        logging_steps=50,
        logging_nan_inf_filter=False,  # it would hide them, and wait for the GPU after every step to do so
        report_to="none",
        seed=workspace.seed,
        data_seed=workspace.seed,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        remove_unused_columns=False,  # it would drop the labels, which our loss wants and the model does not
        **fsdp_settings(model, training),
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else one process would spread batches over all GPUs (DataParallel)
    return arguments


def _trainer_class() -> Any:
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
            self.training, self.logits, self.n_rows, self.lengths = (
                training, logits, len(rows.inputs), rows.inputs.lengths
            )  # fmt: skip
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
            return epoch_loader(self.n_rows, batches, lambda rows: {ROWS: rows})

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


def _log_progress() -> Any:
    """A Trainer callback that sends the loss to our log instead of printing it, and reports every step."""
    from transformers import TrainerCallback

    class LogProgress(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            report_progress(state.global_step, state.max_steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                log.info("step %d of %d: loss %.4f", state.global_step, state.max_steps, float(logs["loss"]))
                told = {name: logs.get(name) for name in ("loss", "learning_rate", "grad_norm")}
                log_metrics({f"train/{name}": value for name, value in told.items()}, state.global_step)

    return LogProgress()
