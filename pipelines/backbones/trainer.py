"""Training of transformers: the transformers Trainer with our batches, loss, switches and checkpoints."""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.backbones.adversarial import EmbeddingAttack, WeightAttack
from pipelines.backbones.evaluation import BestWeights, Labelled
from pipelines.backbones.packing import laid_out
from pipelines.backbones.protocol import Workspace
from pipelines.backbones.scoring import Logits, to_tensors
from pipelines.backbones.sharding import fsdp_settings, is_sharded, n_processes, share_out_on_cpu
from pipelines.backbones.vocabulary import trimmed_vocabulary
from pipelines.progress import report_progress
from pipelines.sections import TrainingSection
from pipelines.tokens import TrainingBatches

log = logging.getLogger(__name__)

EMA = "ema.safetensors"
LABELS, WEIGHTS = "labels", "weights"  # in a batch, beside what the network reads
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def train_network(
    model: Any,
    rows: Labelled,
    *,
    training: TrainingSection,
    workspace: Workspace,
    logits: Logits,
    judged: Labelled | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place; a killed training goes on from its last checkpoint in the workspace's scratch folder.

    Parameters
    ----------
    judged
        Rows that the network is evaluated on as often as `training.evaluate` says.

    Returns
    -------
    The evaluations: step, F1 at the best threshold, AUC, log loss.
    """
    import torch

    if not training.epochs:
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        return []
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
        trainer.train(resume_from_checkpoint=checkpoint)
        assert is_sharded(model) == bool(trainer.args.fsdp), "shared out where asked for, and nowhere else"
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # else it scores differently until reloaded
        if trainer.average is not None:
            trainer.average.put_into(model)
        if trainer.best is None:
            return []
        trainer.accelerator.wait_for_everyone()
        return list(trainer.best.put_into(model))


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
    if judged is not None:
        trainer.best = BestWeights(model, judged, training=training, logits=logits, folder=workspace.scratch)
    return trainer


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


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint below `folder`; one that a kill left half-written is deleted."""
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            json.loads((checkpoint / "trainer_state.json").read_bytes())  # what the Trainer writes last
        except (FileNotFoundError, ValueError):
            log.warning("%s is not whole and is deleted", checkpoint)
            shutil.rmtree(checkpoint)
    whole = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return str(whole[-1]) if whole else None


def _trained(model: Any) -> list[tuple[str, Any]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


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
        save_total_limit=1,
        logging_steps=50,
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
        def __init__(
            self, training: TrainingSection, logits: Logits, rows: Labelled, *, model: Any, **kwargs: Any
        ) -> None:
            super().__init__(model=model, **kwargs)
            self.model_accepts_loss_kwargs = False  # our loss is a batch's mean; the Trainer divides by `accumulate`
            self.training, self.logits, self.rows = training, logits, rows
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
                self.rows.inputs.lengths,
                self.args.per_device_train_batch_size,
                self.args.seed,
                tokens_per_batch=self.training.tokens_per_batch,
                rank=self.args.process_index,
                world=self.args.world_size,
            )
            return epoch_loader(len(self.rows.inputs), batches, _collate(self.rows))

        def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
            if self.best is not None:
                steps = self.state.max_steps / self.args.num_train_epochs
                self.best.see(self.state.global_step, steps_per_epoch=steps, first=self.is_world_process_zero())
            super()._maybe_log_save_evaluate(*args, **kwargs)

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            batch = {name: values for name, values in inputs.items() if name not in (LABELS, WEIGHTS)}
            passes = [self.logits(model, batch) for _ in range(2 if self.training.r_drop else 1)]
            return loss_of(passes, inputs[LABELS], self.training, weights=inputs.get(WEIGHTS))

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            with self.fgm.watch() if self.fgm else nullcontext():
                loss = super().training_step(model, inputs, num_items_in_batch)
            for attack in (self.fgm, self.awp):
                if attack is not None:
                    with attack.apply():
                        super().training_step(model, inputs, num_items_in_batch)
            return loss

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            super().save_model(output_dir, _internal_call)
            if self.average is not None and self.args.should_save:
                save_file(self.average.values, Path(output_dir or self.args.output_dir) / EMA)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            if self.average is not None:
                self.average.values = load_file(Path(resume_from_checkpoint) / EMA)

    return NetworkTrainer


def epoch_loader(n_rows: int, batches: TrainingBatches, collate: Callable[[Any], dict[str, Any]]) -> Any:
    """A Trainer's data loader: batches of row numbers, in another order every epoch, sharded by `batches` alone."""
    from torch.utils.data import DataLoader

    class Batches(DataLoader):  # type: ignore[type-arg]
        def set_epoch(self, epoch: int) -> None:
            batches.set_epoch(epoch)

    numbers: Any = _Numbers(n_rows)
    return Batches(numbers, batch_sampler=batches, collate_fn=collate)  # type: ignore[arg-type]  # it asks for lists


def _collate(rows: Labelled) -> Callable[[Any], dict[str, Any]]:
    """Batches straight from the flat arrays, with labels, and weights if there are any."""
    soft = np.issubdtype(rows.labels.dtype, np.floating)
    columns = {LABELS: rows.labels.astype(np.float32 if soft else np.int64)}
    if rows.weights is not None:
        columns[WEIGHTS] = rows.weights.astype(np.float32)

    def collate(numbers: Any) -> dict[str, Any]:
        taken = {name: values[numbers] for name, values in columns.items()}
        return to_tensors({**rows.inputs.batch(numbers), **taken})

    return collate


class _Numbers:
    """A data set of row numbers that is asked for a whole batch at once."""

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, row: int) -> int:
        return row

    def __getitems__(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows)


def _log_progress() -> Any:
    """A Trainer callback that sends the loss to our log instead of printing it, and reports every step."""
    from transformers import TrainerCallback

    class LogProgress(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            report_progress(state.global_step, state.max_steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                log.info("step %d of %d: loss %.4f", state.global_step, state.max_steps, float(logs["loss"]))

    return LogProgress()
