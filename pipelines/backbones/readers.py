"""What a network reads and what it says: a pair and two logits, or a prompt and the logits of two answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from competition.categories import CategoryTree
from competition.tasks import Task
from pipelines.backbones.answers import answer_labels
from pipelines.backbones.evaluation import Labelled
from pipelines.backbones.packing import PLACES
from pipelines.backbones.pair_model import load_tokenizer
from pipelines.backbones.protocol import Corpus
from pipelines.backbones.two_towers import N_LABELS, TextPairs, encode_text_pairs
from pipelines.config import CausalLoraRecipe, CrossEncoderRecipe, TransformerRecipe, TwoTowersRecipe
from pipelines.encoding import RunTokens, encode_pairs, encode_prompts
from pipelines.targets import Targets
from pipelines.text import pair_texts, prompt_texts, target_kind
from pipelines.tokens import HEAD, Inputs, Joined, TokenRows


class Reader(Protocol):
    """From rows to model input, and from a batch to the logits of label 0 and label 1."""

    @property
    def recipe(self) -> TransformerRecipe:
        """The recipe that it follows."""
        ...

    def texts(self, rows: pd.DataFrame, task: Task) -> pd.DataFrame:
        """All that the network is told about each row, ``(n_rows, ...)`` text; rows with equal texts score the same."""
        ...

    def inputs(self, texts: pd.DataFrame) -> Inputs:
        """Model inputs of every row of `texts`, unpadded."""
        ...

    def logits(self, model: Any, batch: dict[str, Any]) -> Any:
        """``(n_rows, 2)`` logits of label 0 and label 1."""
        ...


@dataclass(frozen=True)
class PairReader:
    """Query and target as a sequence pair; the network's own head has two labels."""

    recipe: CrossEncoderRecipe
    tokenizer: Any
    tree: CategoryTree | None = None

    def texts(self, rows: pd.DataFrame, task: Task) -> pd.DataFrame:
        """Both sides with their prefixes, see `Reader`."""
        return _prefixed_texts(self.recipe, rows, task, self.tree)

    def inputs(self, texts: pd.DataFrame) -> TokenRows:
        """Pairs of at most the recipe's length; the target is cut first."""
        return encode_pairs(self.tokenizer, texts, max_length=self.recipe.max_length)

    def logits(self, model: Any, batch: dict[str, Any]) -> Any:
        """What the row's head says, see `Reader`; that is the first head unless the batch names another."""
        logits = model(**{name: values for name, values in batch.items() if name != HEAD})["logits"]
        by_head = logits.unflatten(-1, (-1, N_LABELS))
        if HEAD not in batch:
            return by_head[..., 0, :]
        index = batch[HEAD].view(-1, 1, 1).expand(*by_head.shape[:-2], 1, N_LABELS)
        return by_head.gather(-2, index).squeeze(-2)


@dataclass(frozen=True)
class TowersReader:
    """Query and target as a text each."""

    recipe: TwoTowersRecipe
    tokenizer: Any
    tree: CategoryTree | None = None

    def texts(self, rows: pd.DataFrame, task: Task) -> pd.DataFrame:
        """Both texts with their prefixes, see `Reader`."""
        return _prefixed_texts(self.recipe, rows, task, self.tree)

    def inputs(self, texts: pd.DataFrame) -> TextPairs:
        """Texts of at most the recipe's length, each cut at its end."""
        return encode_text_pairs(self.tokenizer, texts, max_length=self.recipe.max_length)

    def logits(self, model: Any, batch: dict[str, Any]) -> Any:
        """What the head says, see `Reader`."""
        return model(**batch)["logits"]


def _prefixed_texts(
    recipe: CrossEncoderRecipe | TwoTowersRecipe, rows: pd.DataFrame, task: Task, tree: CategoryTree | None
) -> pd.DataFrame:
    texts = pair_texts(rows, task, recipe.text, tree)
    if recipe.joint == "tag":
        texts["query"] = f"[{target_kind(task)}] " + texts["query"]
    texts["query"] = recipe.query_prefix + texts["query"]
    texts["target"] = recipe.target_prefix + texts["target"]
    return texts


@dataclass(frozen=True)
class AnswerReader:
    """A prompt; the logits of the tokens for label 0 and label 1 where the answer would come next."""

    recipe: CausalLoraRecipe
    tokenizer: Any
    labels: tuple[int, int]
    tree: CategoryTree | None = None

    def texts(self, rows: pd.DataFrame, task: Task) -> pd.DataFrame:
        """The values of the template's fields, see `Reader`."""
        return prompt_texts(rows, task, self.recipe.text, self.tree)

    def inputs(self, texts: pd.DataFrame) -> TokenRows:
        """Prompts of at most the recipe's length; the target is cut first, the template never."""
        return encode_prompts(
            self.tokenizer, texts, template=self.recipe.text.template, max_length=self.recipe.max_length
        )

    def logits(self, model: Any, batch: dict[str, Any]) -> Any:
        """Logits of the two answers after the last token, see `Reader`."""
        if PLACES in batch:
            last = batch[PLACES][:, -1]
            logits = model(**batch, logits_to_keep=last, use_cache=False)["logits"][0]
        else:
            places = (batch["attention_mask"].cumsum(-1) - 1).clamp_min(0)  # padding on the left must not move tokens
            logits = model(**batch, position_ids=places, logits_to_keep=1)["logits"][:, -1]
        return logits if logits.shape[-1] == N_LABELS else logits[:, list(self.labels)]


@dataclass(frozen=True, eq=False)
class Reading:
    """A reader with its tokenizer, and the tokens of a run's texts."""

    tokenizer: Any
    reader: Reader
    tokens: RunTokens

    def labelled(self, rows: pd.DataFrame, task: Task) -> Labelled:
        """Inputs and labels of training rows."""
        inputs, codes = self.tokens.of(self.reader.texts(rows, task))
        targets = Targets.of(rows)
        return Labelled(inputs.take(codes), targets.labels, targets.weights)

    def joint(self, rows: pd.DataFrame, task: Task, others: Mapping[Task, pd.DataFrame]) -> Labelled:
        """Inputs and labels of a task's training rows, followed by those of other tasks, with heads if it has them."""
        frames = [(task, rows), *sorted(others.items(), key=lambda other: other[0].name)]
        inputs = [_token_rows(self.reader.inputs(self.reader.texts(frame, of))) for of, frame in frames]
        targets, joined = Targets.joined([Targets.of(frame) for _, frame in frames]), Joined.of(inputs)
        read = joined if self.reader.recipe.joint == "heads" else joined.rows
        return Labelled(read, targets.labels, targets.weights)


def _token_rows(inputs: Inputs) -> TokenRows:
    assert isinstance(inputs, TokenRows), "recipes that train on several tasks read one sequence per row"
    return inputs


def read_corpus(
    recipe: TransformerRecipe, folder: Path, corpus: Corpus, task: Task, *, trusted: bool = False
) -> Reading:
    """The reading of a run's texts with the tokenizer in `folder`; made once for all folds of a process."""
    return _read_corpus(recipe.model_copy(update={"training": None, "description": ""}), folder, corpus, task, trusted)


@lru_cache(maxsize=4)
def _read_corpus(recipe: TransformerRecipe, folder: Path, corpus: Corpus, task: Task, trusted: bool) -> Reading:
    return reading_of(recipe, load_tokenizer(folder, trusted=trusted), corpus, task)


@lru_cache(maxsize=4)
def reading_of(recipe: TransformerRecipe, tokenizer: Any, corpus: Corpus, task: Task) -> Reading:
    """The reading of a run's texts with this very tokenizer."""
    reader = reader_of(recipe, tokenizer, corpus.tree if task.target_is_category else None)
    return Reading(tokenizer, reader, RunTokens.read(reader.inputs, reader.texts(corpus.pairs, task)))


def reader_of(recipe: TransformerRecipe, tokenizer: Any, tree: CategoryTree | None = None) -> Reader:
    """The reader of the recipe's kind; `tree` is that of the task's targets, for texts that show it.

    For answers the tokenizer pads on the left from now on.
    """
    if isinstance(recipe, CrossEncoderRecipe):
        return PairReader(recipe, tokenizer, tree)
    if isinstance(recipe, TwoTowersRecipe):
        return TowersReader(recipe, tokenizer, tree)
    tokenizer.padding_side = "left"
    return AnswerReader(recipe, tokenizer, answer_labels(recipe, tokenizer), tree)
