"""Cross-encoder: query and target read together by one transformer, fine-tuned with the transformers Trainer."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from competition.tasks import Task
from pipelines.backbones.protocol import DETAILS, Workspace
from pipelines.config import CrossEncoderRecipe
from pipelines.embeddings import batches_by_length
from pipelines.progress import progress
from pipelines.text import query_text
from pipelines.weights import resolve_weights

log = logging.getLogger(__name__)

TOKENS_PER_BATCH = 4096


@dataclass(frozen=True)
class CrossEncoder:
    """Sequence-pair classification; fits in fp32 or bf16, fully or through LoRA.

    On GPUs the same seed need not give the same weights bit for bit (non-deterministic kernels); on CPU it does.
    """

    recipe: CrossEncoderRecipe
    workspace: Workspace
    model: Any = None
    tokenizer: Any = None

    def fit(self, train: pd.DataFrame, task: Task) -> Self:
        """A fitted cross-encoder. A killed fit goes on from its last checkpoint in the workspace's scratch folder."""
        from transformers import set_seed

        from pipelines.backbones.pair_model import load_pair_model, load_tokenizer

        set_seed(self.workspace.seed)
        rows = self._subsample(train)
        weights = resolve_weights(
            self.recipe.weights.name, source=self.recipe.weights.source, revision=self.recipe.weights.revision
        )
        tokenizer = load_tokenizer(weights.folder)
        model = load_pair_model(self.recipe, weights, tokenizer)
        inputs = self._tokenise(tokenizer, rows, task)
        self._train(model, tokenizer, inputs, rows["label"].to_numpy(dtype=np.int64))
        return replace(self, model=model.eval(), tokenizer=tokenizer)

    def predict(self, rows: pd.DataFrame, task: Task) -> np.ndarray:
        """Probability of label 1, float32 ``(n_rows,)``; each distinct (query, target) is scored once."""
        import torch

        torch.set_num_threads(self.workspace.threads)
        pairs = pd.DataFrame({"query": query_text(rows, self.recipe.text.view), "target": rows["target"]})
        codes = pairs.groupby(["query", "target"], sort=False).ngroup().to_numpy()
        first = np.unique(codes, return_index=True)[1]
        inputs = self._tokenise(self.tokenizer, rows.iloc[first], task)
        lengths = np.array([len(item["input_ids"]) for item in inputs], dtype=np.int64)
        scores = np.empty(len(first), dtype=np.float32)
        device = next(self.model.parameters()).device
        half = torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.training.precision == "bf16")
        with progress(f"score {task.name} pairs", total=len(first)) as advance, torch.inference_mode(), half:
            for batch in batches_by_length(lengths, tokens_per_batch=TOKENS_PER_BATCH):
                padded = self.tokenizer.pad([inputs[i] for i in batch], return_tensors="pt").to(device)
                logits = self.model(**padded)["logits"].float()
                scores[batch] = torch.softmax(logits, dim=-1)[:, 1].cpu().numpy()
                advance(len(batch))
        return scores[codes]

    def save(self, folder: Path) -> None:
        """Write model (adapter and head only, with LoRA), tokenizer and recipe."""
        from pipelines.backbones.pair_model import save_pair_model

        folder.mkdir(parents=True, exist_ok=True)
        save_pair_model(self.recipe, self.model, folder)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        text = json.dumps({"recipe": self.recipe.model_dump(mode="json")}, indent=1)
        (folder / DETAILS).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, workspace: Workspace) -> "CrossEncoder":
        """The cross-encoder that `save` wrote."""
        import torch

        from pipelines.backbones.pair_model import load_tokenizer, restore_pair_model

        values = json.loads((folder / DETAILS).read_text(encoding="utf-8"))
        recipe = CrossEncoderRecipe.model_validate(values["recipe"])
        tokenizer = load_tokenizer(folder / "tokenizer")
        model = restore_pair_model(recipe, folder, tokenizer)
        return cls(recipe, workspace, model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer)

    def details(self) -> dict[str, Any]:
        """Parameter counts and the device."""
        parameters = list(self.model.parameters())
        return {
            "parameters": sum(p.numel() for p in parameters),
            "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "device": str(parameters[0].device),
        }

    def _subsample(self, train: pd.DataFrame) -> pd.DataFrame:
        limit = self.recipe.training.max_rows
        if limit is None or limit >= len(train):
            return train
        log.info("training on %s of %s rows (training.max_rows)", f"{limit:,}", f"{len(train):,}")
        return train.sample(limit, random_state=self.workspace.seed)

    def _tokenise(self, tokenizer: Any, rows: pd.DataFrame, task: Task) -> list[dict[str, list[int]]]:
        """Model inputs of every row, unpadded. The longer side is cut first, which keeps the (short) query."""
        queries = (self.recipe.query_prefix + query_text(rows, self.recipe.text.view)).tolist()
        targets = (self.recipe.target_prefix + rows["target"]).tolist()
        if not queries:
            return []
        encoded = tokenizer(queries, targets, truncation="longest_first", max_length=self.recipe.max_length)
        return [{name: values[i] for name, values in encoded.items()} for i in range(len(queries))]

    def _train(self, model: Any, tokenizer: Any, inputs: Sequence[dict[str, list[int]]], labels: np.ndarray) -> None:
        import torch
        from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

        training, scratch = self.recipe.training, self.workspace.scratch / "checkpoints"
        scratch.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(self.workspace.threads)
        arguments = TrainingArguments(
            output_dir=str(scratch),
            num_train_epochs=training.epochs,
            learning_rate=training.learning_rate,
            per_device_train_batch_size=training.batch_size,
            gradient_accumulation_steps=training.accumulate,
            warmup_steps=training.warmup,
            weight_decay=training.weight_decay,
            bf16=training.precision == "bf16",
            gradient_checkpointing=training.gradient_checkpointing,
            train_sampling_strategy="group_by_length",
            optim="adamw_torch_fused",
            save_strategy="epoch",
            save_total_limit=1,
            logging_steps=50,
            report_to="none",
            seed=self.workspace.seed,
            data_seed=self.workspace.seed,
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
        )
        dataset = [{**item, "labels": int(label)} for item, label in zip(inputs, labels, strict=True)]
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
            callbacks=[_log_progress()],
        )
        trainer.remove_callback(PrinterCallback)  # it would print to stdout
        trainer.train(resume_from_checkpoint=last_checkpoint(scratch))
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # else it scores differently until reloaded


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


def _log_progress() -> Any:
    """A Trainer callback that sends the loss to our log instead of printing it."""
    from transformers import TrainerCallback

    class LogProgress(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                log.info("step %d of %d: loss %.4f", state.global_step, state.max_steps, float(logs["loss"]))

    return LogProgress()
