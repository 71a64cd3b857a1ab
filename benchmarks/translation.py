"""What translation is worth: chrF of each backend against human translations, and F1 on dev with what it translates.

    python benchmarks/translation.py --data DIR --reference CSV --glossary TSV [--recipes lexical,e5-bi] [--rows 0]
                                     [--backends original,unseen,dictionary,offline,human] [--augment]

A base learner is fitted on train with each backend's translations of all splits. The threshold comes from training rows
that it is not fitted on, and whose queries its other training rows do not have; dev's labels are used for nothing but
the figures. ``unseen`` is the dictionary that never translates an entry by itself: what train looks like when its
queries are no entries, as dev's are not (the last step of ``offline``). ``--augment`` adds rows translated by the
dictionary into the languages that train lacks. Prints Markdown tables and ``RESULT <name> <value>``.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from competition.cleaning import map_distinct, normalise_query
from competition.metrics import f1
from competition.tasks import QC
from oof.threshold import best_threshold, decide
from pipelines.backbones import build
from pipelines.backbones.evaluation import carve
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.config import load_recipe
from pipelines.output import narrate
from pipelines.prepare import limit_rows, prepare, read_translations
from pipelines.progress import available_threads
from pipelines.run_folder import RunFolder, RunSettings, without_labels
from pipelines.translation.augment import missing_languages, translated_rows
from pipelines.translation.protocol import Resources
from pipelines.translation.quality import quality_table
from pipelines.translation.stage import distinct_queries, translate_queries
from pipelines.translation.work import Translating, own_resources, translate_pairs
from pipelines.weights import cache_dir

RECIPES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "unseen": ("dictionary-even", ()),
    "dictionary": ("dictionary", ()),
    "offline": ("offline", ()),
    "human": ("table", ()),
}
"""Backend -> translation recipe and overrides; ``original`` is no translation."""


def main() -> None:
    """Translate, fit, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True, help="CSV of human translations")
    parser.add_argument("--glossary", type=Path, required=True)
    parser.add_argument("--recipes", default="lexical")
    parser.add_argument("--backends", default="original,unseen,dictionary,offline,human")
    parser.add_argument("--rows", type=int, default=0, help="training rows; 0 takes all")
    parser.add_argument("--judged", type=int, default=2000, help="training rows that the threshold comes from")
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    narrate(quiet=False, verbose=False)
    splits = read(options.data, options.rows, options.seed)
    given = own_resources(tables=(options.reference,), glossaries=(options.glossary,))
    backends = options.backends.split(",")
    english = {name: translations(splits, name, given) for name in backends}
    quality = qualities(splits, english, read_translations(options.reference))
    report("chrF on dev queries", quality)
    for name in quality.columns:
        print(f"RESULT chrf_{name} {quality.loc['mean', name]:.2f}")
    for recipe in options.recipes.split(","):
        tables = {name: with_english(splits, table) for name, table in english.items()}
        if options.augment:
            tables |= {f"{name}+rows": augmented(rows, given, options.seed) for name, rows in tables.items()}
        scores = {
            name: dev_scores(rows, recipe, n_judged=options.judged, seed=options.seed) for name, rows in tables.items()
        }
        report_f1(recipe, splits, pd.DataFrame(scores), quality)


def read(data: Path, n_rows: int, seed: int) -> dict[str, pd.DataFrame]:
    """Cleaned rows of QC, without translations; train limited to about `n_rows`, whole queries."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        prepare(run, RunSettings(data=str(data), tasks=("QC",)))
        splits = {name: rows for name, rows in run.rows("QC").items() if name != "test"}
    return {**splits, "train": limit_rows(splits["train"], n_rows or len(splits["train"]), seed=seed)}


def translations(splits: Mapping[str, pd.DataFrame], backend: str, given: Resources) -> pd.DataFrame:
    """Columns ``language, query, text, query_en``: the translations of a backend, "" everywhere for ``original``."""
    queries = distinct_queries(splits.values())
    if backend == "original":
        return queries.assign(query_en="")
    recipe, overrides = RECIPES[backend]
    started = time.perf_counter()
    translated = translate_queries(queries, Translating(recipe, overrides, given))
    print(f"RESULT translate_{backend}_s {time.perf_counter() - started:.1f}", flush=True)
    return translated


def with_english(splits: Mapping[str, pd.DataFrame], translated: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows with a backend's translations."""
    table = translated.set_index(["language", "query"])["query_en"]
    found = {}
    for name, rows in splits.items():
        keys = pd.MultiIndex.from_arrays([rows["language"], map_distinct(rows["query"], normalise_query)])
        english = pd.Series(table.reindex(keys).to_numpy(), index=rows.index, dtype="str")
        found[name] = rows.assign(query_en=english.fillna(""))
    return found


def augmented(splits: Mapping[str, pd.DataFrame], given: Resources, seed: int) -> dict[str, pd.DataFrame]:
    """The rows, train with rows added in the languages that only dev has."""
    train = splits["train"]
    n_rows = round(len(train) / train["language"].nunique())
    parts = [
        translated_rows(
            train,
            lambda pairs, target: translate_pairs(pairs, Translating("dictionary", resources=given, target=target)),
            language,
            rows=n_rows,
            seed=seed,
        )
        for language in missing_languages(splits)
    ]
    added = pd.concat(parts, ignore_index=True)
    if not (train["query_en"] != "").any():
        added["query_en"] = ""  # the learner that reads originals alone gets nothing else here either
    added["id"] = np.arange(len(added)) + int(train["id"].max()) + 1
    print(f"added rows: {added['language'].value_counts().to_dict()}")
    return {**splits, "train": pd.concat([train, added.reindex(columns=train.columns)], ignore_index=True)}


def qualities(
    splits: Mapping[str, pd.DataFrame], english: Mapping[str, pd.DataFrame], human: pd.DataFrame
) -> pd.DataFrame:
    """chrF by language (and their mean) and backend, of the distinct queries of dev that are not English."""
    asked = distinct_queries([splits["dev"]])
    asked = asked[asked["language"] != "en"]
    columns = {
        name: quality_table(asked.merge(table[["language", "query", "query_en"]]), human).set_index("language")["chrf"]
        for name, table in english.items()
    }
    table = pd.DataFrame(columns)
    table.loc["mean"] = table.mean()
    return table


def dev_scores(splits: Mapping[str, pd.DataFrame], recipe: str, *, n_judged: int, seed: int) -> np.ndarray:
    """Decisions 0 or 1 for every row of dev, by a base learner that is fitted on train."""
    rest, judged = carve(splits["train"], n_judged, seed=seed)
    frames = [without_labels(rows) for rows in (splits["train"], splits["dev"])]
    with tempfile.TemporaryDirectory() as scratch:
        space = Workspace(
            cache=cache_dir() / "embeddings",
            scratch=Path(scratch),
            corpus=Corpus.of(frames),
            seed=seed,
            threads=available_threads(),
        )
        model = build(load_recipe(recipe), space).fit(rest, QC)
        sure, scores = (model.predict(without_labels(rows), QC) for rows in (judged, splits["dev"]))
    threshold = best_threshold(judged["label"].to_numpy(dtype=np.int8), sure).threshold
    return np.asarray(decide(scores, threshold))


def report_f1(recipe: str, splits: Mapping[str, pd.DataFrame], decided: pd.DataFrame, quality: pd.DataFrame) -> None:
    """F1 by language and backend; what a point of chrF is worth, from the languages that are not English."""
    dev = splits["dev"]
    labels = dev["label"].to_numpy(dtype=np.int8)
    groups: dict[str, np.ndarray] = {
        language: (dev["language"] == language).to_numpy() for language in sorted(dev["language"].unique())
    }
    seen = dev["language"].isin(splits["train"]["language"].unique()).to_numpy()
    groups |= {"in train": seen, "not in train": ~seen, "all": np.ones(len(dev), dtype=bool)}
    table = pd.DataFrame(
        {
            name: {key: 100 * f1(labels[own], decided[name].to_numpy()[own]) for key, own in groups.items()}
            for name in decided
        }
    )
    report(f"F1 on dev, {recipe}", table)
    for name in table.columns:
        print(f"RESULT {recipe}_f1_{name} {table.loc['all', name] / 100:.4f}")
        print(f"RESULT {recipe}_f1_unseen_languages_{name} {table.loc['not in train', name] / 100:.4f}")
    if len(quality.columns) > 1:
        print(f"RESULT {recipe}_f1_pt_per_chrf_point {worth(table, quality.drop(index='mean')):.3f}", flush=True)


def worth(table: pd.DataFrame, quality: pd.DataFrame) -> float:
    """F1 points (.01) per point of chrF: the slope over backends within languages (each language its own intercept)."""
    scores = table.loc[quality.index, quality.columns]
    x, y = (frame.sub(frame.mean(axis=1), axis=0).to_numpy().ravel() for frame in (quality, scores))
    return float((x @ y) / (x @ x))


def report(title: str, table: pd.DataFrame) -> None:
    """A Markdown table."""
    names: Sequence[str] = [str(name) for name in table.columns]
    print(f"\n| {title} | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for key, line in table.iterrows():
        print(f"| {key} | " + " | ".join(f"{value:.1f}" for value in line) + " |")
    print(flush=True)


if __name__ == "__main__":
    main()
