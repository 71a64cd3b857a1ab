"""Masked-language modelling on a competition's texts: an encoder gets used to them before it sees a label."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from competition.tasks import Task
from pipelines.backbones.checkpoints import keep_checkpoints, last_checkpoint
from pipelines.backbones.loader import epoch_loader
from pipelines.backbones.losses import FiniteLoss
from pipelines.backbones.pair_model import loading
from pipelines.backbones.pair_store import ENCODER, pretrained_weights
from pipelines.backbones.protocol import DETAILS, Workspace
from pipelines.backbones.readers import read_corpus
from pipelines.backbones.scoring import to_tensors
from pipelines.backbones.tensors_only import tensors_only
from pipelines.backbones.trainer import training_arguments
from pipelines.config import CrossEncoderRecipe
from pipelines.tokens import Inputs, TrainingBatches
from pipelines.weights import load_checked, named_weights

log = logging.getLogger(__name__)

MASKED_SHARE = 0.15  # Devlin et al. 2019
HEADS = ("cls", "lm_head", "lm_predictions", "classifier", "score", "pooler")


def pretrain_masked(recipe: CrossEncoderRecipe, space: Workspace, task: Task, folder: Path) -> None:
    """Train the recipe's encoder to fill gaps in the distinct pairs of the workspace's corpus; keep it in `folder`.

    The pairs are what the recipe's cross-encoder reads. The language-modelling head is the checkpoint's own where it
    has one, else new, and is dropped afterwards.
    """
    from transformers import AutoModelForMaskedLM, set_seed

    set_seed(space.seed)
    named = named_weights(recipe.weights)
    weights = pretrained_weights(named, space.init)
    reading = read_corpus(recipe, named.folder, space.corpus, task, trusted=named.trusted)
    model = load_checked(AutoModelForMaskedLM, weights, head_prefixes=HEADS, **loading(recipe.training))
    _train(model, reading.tokenizer, reading.tokens.inputs, recipe, space)
    model.base_model.save_pretrained(folder / ENCODER)
    reading.tokenizer.save_pretrained(folder / "tokenizer")
    text = json.dumps({"recipe": recipe.model_dump(mode="json")}, indent=1)
    (folder / DETAILS).write_text(text, encoding="utf-8")


def _train(model: Any, tokenizer: Any, inputs: Inputs, recipe: CrossEncoderRecipe, space: Workspace) -> None:
    import torch
    from transformers import DataCollatorForLanguageModeling, PrinterCallback, Trainer

    training = recipe.training
    torch.set_num_threads(space.threads)
    gaps = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED_SHARE)

    batches = TrainingBatches(
        inputs.lengths, training.batch_size, space.seed, tokens_per_batch=training.tokens_per_batch
    )

    def collate(rows: Any) -> dict[str, Any]:
        batch = to_tensors(inputs.batch(rows))
        seeds = np.random.SeedSequence([space.seed, batches.epoch, *rows[:1]]).generate_state(1)
        with torch.random.fork_rng(devices=[]):  # the gaps of a batch are the same for a training that was resumed
            torch.manual_seed(int(seeds[0]))
            ids, labels = gaps.torch_mask_tokens(batch["input_ids"])
        return {**batch, "input_ids": ids, "labels": labels}

    class GapTrainer(Trainer):  # type: ignore[misc]
        losses = FiniteLoss()

        def get_train_dataloader(self) -> Any:
            return epoch_loader(len(inputs), batches, collate)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            self.losses.see(loss, step=self.state.global_step + 1)
            return loss

        def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
            if self.control.should_log or self.control.should_save:
                self.losses.refuse_bad(learning_rate=training.learning_rate)
            super()._maybe_log_save_evaluate(*args, **kwargs)

    trainer = GapTrainer(model=model, args=training_arguments(training, space, model), train_dataset=range(len(inputs)))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(keep_checkpoints(training.checkpoint_minutes, dict))
    checkpoint = last_checkpoint(Path(trainer.args.output_dir))
    with tensors_only(checkpoint):
        trainer.train(resume_from_checkpoint=checkpoint)
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    log.info("masked-language modelling on %s distinct pairs is done", f"{len(inputs):,}")
