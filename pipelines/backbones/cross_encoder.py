"""Query and target read together by one transformer: a cross-encoder, or a language model that answers yes or no."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from competition.errors import CompetitionError
from competition.tasks import Task
from pipelines.backbones.evaluation import carve
from pipelines.backbones.protocol import DETAILS, Workspace
from pipelines.backbones.scoring import Logits
from pipelines.config import TransformerRecipe
from pipelines.progress import progress
from pipelines.targets import EXTRA, SOFT, WEIGHT
from pipelines.tokens import Inputs
from pipelines.trust import may_run_code
from pipelines.weights import named_weights

if TYPE_CHECKING:
    from pipelines.backbones.frozen_layers import FrozenLayers

log = logging.getLogger(__name__)

_RECIPES: TypeAdapter[TransformerRecipe] = TypeAdapter(TransformerRecipe)


@dataclass(frozen=True)
class CrossEncoder:
    """Sequence-pair classification or yes/no answers; fits in fp32 or bf16, fully or through LoRA.

    What the two kinds do differently is in `pipelines.backbones.readers` and `pipelines.backbones.pair_model`. On
    GPUs the same seed need not give the same weights bit for bit (non-deterministic kernels); on CPU it does. With
    `frozen` layers the states below are those of the run's cache; a loaded network reads tokens as ever.
    """

    recipe: TransformerRecipe
    workspace: Workspace
    model: Any = None
    tokenizer: Any = None
    evaluations: tuple[Mapping[str, float], ...] = ()
    pieces: int = 1
    frozen: "FrozenLayers | None" = None
    adapter: str | None = None

    def fit(self, train: pd.DataFrame, task: Task) -> Self:
        """A fitted network. A killed fit goes on from its last checkpoint in the workspace's scratch folder."""
        from transformers import set_seed

        from pipelines.backbones.dropout import quick_dropout
        from pipelines.backbones.frozen_layers import FrozenLayers
        from pipelines.backbones.pair_model import load_pair_model
        from pipelines.backbones.pair_store import continue_pair_model, has_head
        from pipelines.backbones.readers import read_corpus
        from pipelines.backbones.scoring import begin_comparing
        from pipelines.backbones.trainer import train_network
        from pipelines.backbones.two_towers import TextPairs

        set_seed(self.workspace.seed)
        training = self.recipe.training
        rows, judged = self._slice(self._subsample(train))
        weights = named_weights(self.recipe.weights)
        reading = read_corpus(self.recipe, weights.folder, self.workspace.corpus, task, trusted=weights.trusted)
        others = self.workspace.others if self.recipe.joint else {}
        n_heads = 1 + len(others) if self.recipe.joint == "heads" else 1
        if self.workspace.init is None:
            model = load_pair_model(self.recipe, weights, reading.tokenizer, n_heads=n_heads)
        else:
            model = continue_pair_model(self.recipe, self.workspace.init, reading.tokenizer, n_heads=n_heads)
        frozen = FrozenLayers.of(self.recipe, weights, self.workspace)
        with frozen.taken_out(model, reading) if frozen else nullcontext(reading) as reading, quick_dropout():
            labelled = reading.joint(rows, task, others) if others else reading.labelled(rows, task)
            if isinstance(labelled.inputs, TextPairs) and not has_head(self.workspace.init):
                begin_comparing(model, labelled.inputs, half=training.half, seed=self.workspace.seed)
            trained = train_network(
                model,
                labelled,
                training=training,
                workspace=self.workspace,
                logits=reading.reader.logits,
                judged=reading.labelled(judged, task) if training.evaluate else None,
            )
        return replace(
            self,
            model=model.eval(),
            tokenizer=reading.tokenizer,
            evaluations=trained.evaluations,
            pieces=trained.pieces,
            frozen=frozen,
        )

    def predict(self, rows: pd.DataFrame, task: Task) -> np.ndarray:
        """Probability of label 1, float32 ``(n_rows,)``; rows that read the same are scored once."""
        import torch

        from pipelines.backbones.pair_store import wear_adapter
        from pipelines.backbones.readers import reading_of
        from pipelines.backbones.scoring import score_inputs

        torch.set_num_threads(self.workspace.threads)
        if self.adapter is not None:
            wear_adapter(self.recipe, self.model, self.adapter)
        reading = reading_of(self.recipe, self.tokenizer, self.workspace.corpus, task)
        half = self.recipe.training.half
        with self.frozen.taken_out(self.model, reading) if self.frozen else nullcontext(reading) as reading:
            inputs, codes = reading.tokens.of(reading.reader.texts(rows, task))
            logits = self._scoring_logits(reading.reader.logits, inputs, half=half)
            with progress(f"score {task.name} pairs", total=len(inputs)) as advance:
                scores = score_inputs(self.model, inputs, logits=logits, half=half, advance=advance)
        return np.asarray(scores[codes])

    def save(self, folder: Path) -> None:
        """Write model (adapter and head only, with LoRA), tokenizer and recipe; of several processes the first does."""
        from pipelines.backbones.pair_store import save_pair_model
        from pipelines.backbones.sharding import is_first_process

        folder.mkdir(parents=True, exist_ok=True)
        save_pair_model(self.recipe, self.model, folder)
        if not is_first_process():
            return
        self.tokenizer.save_pretrained(folder / "tokenizer")
        text = json.dumps({"recipe": self.recipe.model_dump(mode="json")}, indent=1)
        (folder / DETAILS).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, workspace: Workspace) -> "CrossEncoder":
        """The network that `save` wrote."""
        return next(cls.load_folds([folder], workspace))

    @classmethod
    def load_folds(cls, folders: Sequence[Path], workspace: Workspace) -> Iterator["CrossEncoder"]:
        """The networks that `save` wrote for several folds; behind adapters the frozen base is in memory once."""
        import torch

        from pipelines.backbones.pair_model import load_tokenizer
        from pipelines.backbones.pair_store import adapter_name, restore_folds

        device = "cuda" if torch.cuda.is_available() else "cpu"
        values = json.loads((folders[0] / DETAILS).read_text(encoding="utf-8"))
        recipe = _RECIPES.validate_python(values["recipe"])
        words = folders[0] / "tokenizer"
        trusted = may_run_code(str(words), words, from_hub=False, asked=recipe.weights.trust_remote_code)
        tokenizer = load_tokenizer(words, trusted=trusted)
        for i, model in enumerate(restore_folds(recipe, folders, tokenizer)):
            adapter = adapter_name(i) if recipe.training.lora is not None else None
            yield cls(recipe, workspace, model.to(device), tokenizer, adapter=adapter)

    def details(self) -> dict[str, Any]:
        """Parameter counts and the device; in how many pieces batches were computed, if memory asked for that."""
        parameters = list(self.model.parameters())
        return {
            "parameters": sum(p.numel() for p in parameters),
            "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "device": str(parameters[0].device),
            "half_precision": self.recipe.training.half,
            "evaluations": list(self.evaluations),
            **({"pieces": self.pieces} if self.pieces > 1 else {}),
        }

    def _scoring_logits(self, logits: Logits, inputs: Inputs, *, half: bool) -> Logits:
        """`logits`, by the engine that the recipe names; on GPUs torch's always."""
        on_cpu = next(self.model.parameters()).device.type == "cpu"
        if self.recipe.training.scoring == "torch" or not on_cpu or not len(inputs):
            return logits
        from pipelines.backbones.openvino_scoring import openvino_logits

        names = inputs.batch(np.arange(1))
        return openvino_logits(self.model, names, logits=logits, half=half, threads=self.workspace.threads)

    def _subsample(self, train: pd.DataFrame) -> pd.DataFrame:
        limit = self.recipe.training.max_rows
        if limit is None or limit >= len(train):
            return train
        log.info("training on %s of %s rows (training.max_rows)", f"{limit:,}", f"{len(train):,}")
        return train.sample(limit, random_state=self.workspace.seed)

    def _slice(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Rows to train on, and those to evaluate on while it trains (none unless the recipe asks for them).

        Extra rows are never evaluated on, nor trained on where their group is: they may be a judged row in other words.
        """
        training = self.recipe.training
        if not training.evaluate:
            return rows, rows[:0]
        extra = rows[EXTRA].to_numpy(dtype=bool) if EXTRA in rows else np.zeros(len(rows), dtype=bool)
        trained, judged = carve(rows[~extra], training.evaluate_rows, seed=self.workspace.seed)
        judged = judged.drop(columns=[SOFT, WEIGHT], errors="ignore")  # what counts is their labels
        if judged["label"].nunique() < 2:
            raise CompetitionError(
                f"the {len(judged):,} rows to evaluate on while training do not have both labels",
                advice="raise training.evaluate_rows, or set training.evaluate = 0",
            )
        if not extra.any():
            return trained, judged
        besides = rows[extra]
        return pd.concat([trained, besides[~besides["group"].isin(judged["group"])]]), judged
