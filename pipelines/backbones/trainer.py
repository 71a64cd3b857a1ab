"""Training of transformers: the transformers Trainer with our batches, loss, switches and checkpoints."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.backbones.checkpoints import keep_checkpoints, last_checkpoint
from pipelines.backbones.evaluation import BestWeights, Labelled
from pipelines.backbones.losses import refuse_bad_weights
from pipelines.backbones.network_trainer import network_trainer
from pipelines.backbones.packing import laid_out
from pipelines.backbones.protocol import Workspace
from pipelines.backbones.scoring import Logits
from pipelines.backbones.sharding import fsdp_settings, is_sharded, n_processes
from pipelines.backbones.tensors_only import tensors_only
from pipelines.backbones.vocabulary import trimmed_vocabulary
from pipelines.progress import report_progress, steps_shown
from pipelines.sections import TrainingSection
from pipelines.trackers import log_metrics

log = logging.getLogger(__name__)

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

    Where memory runs out in a step, its batches are computed again in smaller pieces, see
    `pipelines.backbones.network_trainer`.

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
    trainer = network_trainer()(
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
