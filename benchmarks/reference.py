"""The other side of the two speed benchmarks, and the rows that both sides read.

The reference is the data path of the CIKM 2025 AnalytiCup winner's code: a torch data set that tokenises a row whenever
it is asked for it, batches in random order (file order when scoring) padded to their longest row, fp32, SDPA attention,
the transformers Trainer with its default AdamW, equal rows as often as they stand there.
"""

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from competition.cleaning import map_distinct, normalise_query
from competition.metrics import auc
from competition.rows import read_rows
from competition.sample import write_sample
from competition.tasks import QC
from oof.threshold import best_threshold
from pipelines.backbones.pair_model import load_pair_model, load_tokenizer
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.backbones.readers import PairReader
from pipelines.config import CrossEncoderRecipe, load_recipe
from pipelines.prepare import read_translations
from pipelines.progress import available_threads
from pipelines.weights import Weights, resolve_weights

RECIPE = "e5-ce"
AS_REFERENCE = ("training.precision=fp32", "training.attention=sdpa", "training.trim_vocabulary=false")

T = TypeVar("T")


def recipe_of(overrides: Sequence[str]) -> CrossEncoderRecipe:
    """The recipe that both sides follow, one epoch."""
    recipe = load_recipe(RECIPE, ["training.epochs=1", *overrides])
    assert isinstance(recipe, CrossEncoderRecipe)
    return recipe


def weights_of(recipe: CrossEncoderRecipe) -> Weights:
    """The recipe's pretrained weights on this disk."""
    return resolve_weights(recipe.weights.name, source=recipe.weights.source, revision=recipe.weights.revision)


def read_pairs(folder: Path | None, *, n_train: int, n_fresh: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows and fresh labelled rows of task QC with translations; of a made-up competition without a folder."""
    if folder is None:
        with tempfile.TemporaryDirectory() as made_up:
            write_sample(made_up, n_train=n_train, n_dev=n_fresh, n_test=1, seed=seed, tasks=(QC.name,))
            return read_pairs(Path(made_up), n_train=n_train, n_fresh=n_fresh, seed=seed)
    english = read_translations(folder / "translations.csv")
    frames = []
    for split, n_rows in (("train", n_train), ("dev", n_fresh)):
        rows = read_rows(folder / f"{split}_{QC.name}.txt", QC, labelled=True)
        rows = rows.sample(min(n_rows, len(rows)), random_state=seed).reset_index(drop=True)
        rows["target"] = rows["target"].fillna("")
        key = rows[["language"]].assign(query=map_distinct(rows["query"], normalise_query))
        rows["query_en"] = key.merge(english, on=["language", "query"], how="left")["query_en"].fillna("")
        frames.append(rows)
    return frames[0], frames[1]


def workspace(folder: Path, corpus: Sequence[pd.DataFrame], *, seed: int, threads: int) -> Workspace:
    """A job's folders, corpus, seed and threads."""
    return Workspace(folder / "cache", folder / "scratch", Corpus.of(corpus), seed, threads)


class PerItemRows:
    """Rows as a torch data set that tokenises each one whenever it is asked for it."""

    def __init__(self, rows: pd.DataFrame, recipe: CrossEncoderRecipe, tokenizer: Any) -> None:
        self.texts = PairReader(recipe, tokenizer).texts(rows, QC).assign(label=rows["label"].astype(int))
        self.tokenizer, self.max_length = tokenizer, recipe.max_length

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> dict[str, Any]:
        one = self.texts.iloc[row]
        tokens = self.tokenizer(one["query"], one["target"], truncation=True, max_length=self.max_length)
        return {**tokens, "labels": int(one["label"])}


def reference_trainer(
    model: Any,
    rows: pd.DataFrame,
    recipe: CrossEncoderRecipe,
    *,
    tokenizer: Any,
    folder: Path,
    seed: int,
    callbacks: Sequence[Any] = (),
) -> Any:
    """A plain transformers Trainer on per-item rows, not yet started."""
    from torch.nn import functional
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

    training = recipe.training
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=training.epochs,
        learning_rate=training.learning_rate,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.batch_size,
        warmup_steps=training.warmup,
        weight_decay=training.weight_decay,
        optim="adamw_torch",
        save_strategy="no",
        report_to="none",
        seed=seed,
        use_cpu=True,
        disable_tqdm=True,
        label_names=["labels"],
        remove_unused_columns=False,  # our network takes token types by keyword, which it would not see
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=PerItemRows(rows, recipe, tokenizer),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_loss_func=lambda outputs, labels, **_: functional.cross_entropy(outputs["logits"], labels),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def reference_model(recipe: CrossEncoderRecipe, *, seed: int) -> tuple[Any, Any]:
    """Network and tokenizer as our side loads them, with the same new head."""
    from transformers import set_seed

    set_seed(seed)
    weights = weights_of(recipe)
    tokenizer = load_tokenizer(weights.folder)
    return load_pair_model(recipe, weights, tokenizer), tokenizer


def reference_scores(trainer: Any, rows: PerItemRows) -> np.ndarray:
    """Probability of label 1 of every row, float32 ``(n_rows,)``."""
    from scipy.special import softmax

    return np.asarray(softmax(trainer.predict(rows).predictions, axis=1)[:, 1])


def quality(labels: pd.Series, scores: np.ndarray) -> str:
    """AUC, and F1 at its best threshold."""
    values = labels.to_numpy(dtype=np.int8)
    return f"{auc(values, scores):.4f} | {best_threshold(values, scores).f1:.4f}"


@dataclass
class Seconds:
    """Seconds by the wall clock and of the processor."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Seconds":
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)


def median_ratio(slow: Sequence[Seconds], fast: Sequence[Seconds], *, clock: str = "wall") -> float:
    """How many times faster `fast` is: the median over what was done side by side."""
    return float(np.median([getattr(a, clock) / getattr(b, clock) for a, b in zip(slow, fast, strict=True)]))


@dataclass
class Turns:
    """Works in threads of which one runs at a time: each for as long as until it calls `take`, then the next.

    What else happens on the machine slows both sides alike. The thread pool is torch's own: it computes with as many
    threads as the work sets.
    """

    names: tuple[str, ...]
    seconds: dict[str, list[Seconds]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._floor, self._waiting = threading.Condition(), list(self.names)
        self._local = threading.local()

    def run(self, works: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """What each work returns; their turns' seconds are in `seconds` afterwards."""
        with ThreadPoolExecutor(len(works)) as pool:
            futures = {name: pool.submit(self._whole, name, work) for name, work in works.items()}
            return {name: future.result() for name, future in futures.items()}

    def take(self) -> None:
        """The calling work's turn is over; returns when its next one begins."""
        self._end(stays=True)
        self._begin()

    def _whole(self, name: str, work: Callable[[], T]) -> T:
        self._local.name = name
        self._begin()
        try:
            return work()
        finally:
            self._end(stays=False)

    def _begin(self) -> None:
        with self._floor:
            self._floor.wait_for(lambda: self._waiting[0] == self._local.name)
        self._local.began = Seconds.now()

    def _end(self, *, stays: bool) -> None:
        self.seconds[self._local.name].append(Seconds.now() - self._local.began)
        with self._floor:
            name = self._waiting.pop(0)
            if stays:
                self._waiting.append(name)
            self._floor.notify_all()


@contextmanager
def watched(*callbacks: Any) -> Iterator[None]:
    """Every Trainer made inside has the callbacks, ours and the reference's alike."""
    from transformers.trainer import DEFAULT_CALLBACKS

    before = list(DEFAULT_CALLBACKS)
    DEFAULT_CALLBACKS.extend(callbacks)
    try:
        yield
    finally:
        DEFAULT_CALLBACKS[:] = before


def parser_of(description: str) -> argparse.ArgumentParser:
    """The options that both benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data", type=Path, help="folder with train_QC.txt, dev_QC.txt, translations.csv; else made up"
    )
    parser.add_argument("--threads", type=int, default=available_threads(), help="CPU threads of both sides")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe of both sides"
    )
    parser.add_argument("--quick", action="store_true", help="a few rows: does it run?")
    return parser
