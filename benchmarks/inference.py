"""Scoring rows per second: `CrossEncoder.predict` beside the reference's data path, on the same fine-tuned weights.

    python benchmarks/inference.py [--data FOLDER] [--model FOLDER] [--rows 1600] [--threads N]

The weights are those of `--model` (what a finished part keeps in `weights/`), else fine-tuned first on `--train-rows`.
Rows come in portions; every portion is scored by the reference, by the states between the two sides (the single
contributions, switched on one after the other) and by ours, in one direction and then in the other, so that whatever
else the machine does slows all alike: the speed-up is the median over portions. No two rows of them read the same; what
scoring equal rows once adds is measured apart, with every row there twice. Where OpenVINO is installed it has a line.
"""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from reference import (
    Seconds,
    median_ratio,
    parser_of,
    quality,
    read_pairs,
    recipe_of,
    reference_scores,
    reference_trainer,
    workspace,
)

from competition.tasks import QC
from pipelines.backbones import load
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.readers import PairReader
from pipelines.backbones.scoring import score_inputs, to_tensors

REFERENCE, OURS, OPENVINO = "reference", "+ bf16 = ours", "ours by OpenVINO"
TWICE, ONCE = "reference, every row twice", "ours, every row twice"
ROWS_PER_BATCH = 32

Scorer = Callable[[pd.DataFrame], np.ndarray]


@dataclass
class Runs:
    """What one way of scoring took for every portion, and its scores by row number."""

    seconds: list[Seconds] = field(default_factory=list)
    scores: dict[int, np.ndarray] = field(default_factory=dict)

    def rate(self, n_rows: int, *, clock: str) -> float:
        """Rows per second, the median over portions."""
        return n_rows / float(np.median([getattr(one, clock) for one in self.seconds]))

    def all_scores(self) -> np.ndarray:
        """Scores of all portions in their order."""
        return np.concatenate([self.scores[portion] for portion in sorted(self.scores)])


def scorers(model: CrossEncoder, folder: Path) -> dict[str, Scorer]:
    """Every way of scoring by its name, from the reference's to ours."""
    reader = PairReader(model.recipe, model.tokenizer)

    def attend(how: str) -> None:
        model.model.encoder.set_attn_implementation(how)

    def reference(rows: pd.DataFrame) -> np.ndarray:
        attend("sdpa")
        trainer = reference_trainer(model.model, rows, model.recipe, tokenizer=model.tokenizer, folder=folder, seed=0)
        return reference_scores(trainer, trainer.train_dataset)

    def tokenised_once(rows: pd.DataFrame) -> np.ndarray:
        import torch

        attend("sdpa")
        inputs, found = reader.inputs(reader.texts(rows, QC)), []
        with torch.inference_mode():
            for start in range(0, len(rows), ROWS_PER_BATCH):
                batch = inputs.batch(np.arange(start, min(start + ROWS_PER_BATCH, len(rows))))
                found.append(torch.softmax(reader.logits(model.model, to_tensors(batch)), dim=-1)[:, 1].numpy())
        return np.concatenate(found)

    def by_length(rows: pd.DataFrame, attention: str = "sdpa") -> np.ndarray:
        attend(attention)
        return score_inputs(model.model, reader.inputs(reader.texts(rows, QC)), logits=reader.logits, half=False)

    def ours(rows: pd.DataFrame, scoring: str = "torch") -> np.ndarray:
        attend("eager")
        return by_engine(model, scoring).predict(rows.drop(columns="label"), QC)

    openvino = {OPENVINO: lambda rows: ours(rows, "openvino")} if find_spec("openvino") else {}
    return {
        REFERENCE: reference,
        "+ tokenised once, no Trainer": tokenised_once,
        "+ batches by length": by_length,
        "+ eager attention": lambda rows: by_length(rows, "eager"),
        OURS: ours,
        **openvino,
        TWICE: lambda rows: reference(pd.concat([rows, rows], ignore_index=True)),
        ONCE: lambda rows: ours(pd.concat([rows, rows], ignore_index=True)),
    }


def by_engine(model: CrossEncoder, scoring: str) -> CrossEncoder:
    """The same fitted network with another `training.scoring`."""
    training = model.recipe.training.model_copy(update={"scoring": scoring})
    return replace(model, recipe=model.recipe.model_copy(update={"training": training}))


def measure(ways: dict[str, Scorer], rows: pd.DataFrame, *, n_portions: int) -> dict[str, Runs]:
    """Every way of scoring on every portion of `rows`, after a warm-up."""
    found = {name: Runs() for name in ways}
    for score in ways.values():
        score(rows[:8])
    size = len(rows) // n_portions
    for portion in range(n_portions):
        part = rows[portion * size : (portion + 1) * size]
        for name in list(ways)[:: 1 if portion % 2 == 0 else -1]:
            began = Seconds.now()
            found[name].scores[portion] = ways[name](part)
            found[name].seconds.append(Seconds.now() - began)
    return found


def print_table(found: dict[str, Runs], labels: pd.Series, *, size: int) -> None:
    """One line per way of scoring, compared with the reference."""
    base = found[REFERENCE].all_scores()
    print("\n| switched on, one after the other | rows/s | rows/CPU-s | times the reference | correlation | AUC | F1 |")
    print("|---|---|---|---|---|---|---|")
    for name, runs in found.items():
        if name in (TWICE, ONCE):
            continue
        scores, speedup = runs.all_scores(), median_ratio(found[REFERENCE].seconds, runs.seconds)
        alike = np.corrcoef(base, scores)[0, 1]
        print(f"| {name} | {runs.rate(size, clock='wall'):.1f} | {runs.rate(size, clock='cpu'):.1f} | {speedup:.2f} "
              f"| {alike:.6f} | {quality(labels, scores)} |")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder of a saved cross-encoder")
    parser.add_argument("--train-rows", type=int, default=2048, help="rows to fine-tune on without --model")
    parser.add_argument("--rows", type=int, default=1600, help="rows to score")
    parser.add_argument("--portions", type=int, default=4)
    args = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    n_train, n_rows, n_portions = (32, 64, 2) if args.quick else (args.train_rows, args.rows, args.portions)
    train, fresh = read_pairs(args.data, n_train=n_train, n_fresh=n_rows, seed=args.seed)
    fresh = fresh.drop_duplicates(["language", "query", "target"], ignore_index=True)
    size = len(fresh) // n_portions
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        space = workspace(folder, [fresh[:1]], seed=args.seed, threads=args.threads)  # nothing is tokenised beforehand
        recipe = recipe_of(["training.precision=bf16", *args.set])
        model = load(args.model, space) if args.model else CrossEncoder(recipe, space).fit(train, QC)
        assert isinstance(model, CrossEncoder)
        model = replace(model, recipe=model.recipe.model_copy(update={"training": recipe.training}))
        print(f"{size * n_portions:,} rows in {n_portions} portions, {args.threads} threads", flush=True)
        found = measure(scorers(model, folder), fresh, n_portions=n_portions)
    print_table(found, fresh["label"][: size * n_portions], size=size)
    slow = found[REFERENCE].seconds
    print(f"\nRESULT inference_speedup_every_row_twice {median_ratio(found[TWICE].seconds, found[ONCE].seconds):.2f}")
    for name, result in ((OPENVINO, "inference_speedup_openvino"), (OURS, "inference_speedup")):
        if name in found:
            print(f"RESULT {result}_cpu {median_ratio(slow, found[name].seconds, clock='cpu'):.2f}")
            print(f"RESULT {result} {median_ratio(slow, found[name].seconds):.2f}")


if __name__ == "__main__":
    main()
