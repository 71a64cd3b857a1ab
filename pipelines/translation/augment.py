"""Extra training rows by translation: into languages that train lacks, or there and back.

Translating training rows into the missing languages was the largest measured gain of the 3rd place of the CIKM 2025
AnalytiCup; back-translation is Sennrich et al.'s (2016).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from competition.artefacts import PROVENANCE, sealing
from competition.cleaning import map_distinct, normalise_query
from competition.errors import CompetitionError, Fault
from competition.languages import ENGLISH
from pipelines.config import learner_name
from pipelines.prepare import limit_rows
from pipelines.provenance import now, provenance
from pipelines.run_folder import RunFolder
from pipelines.translation.work import Translating, translate_pairs

log = logging.getLogger(__name__)

COLUMNS = ("id", "parent", "way", "fold", "language", "query", "query_en", "target", "label")

Translate = Callable[[pd.DataFrame, str], pd.Series]
"""``(pairs with language and text, target language) -> translations`` aligned with the pairs, "" for none."""


@dataclass(frozen=True)
class Augmenting:
    """Which rows to make.

    Attributes
    ----------
    into
        Languages to translate to; empty: those that only dev and test have.
    back
        Languages to translate to and back from, instead.
    rows
        About so many new rows per language (whole queries); None: as many as a language of train has on average.
    seed
        Chooses the queries.
    """

    into: tuple[str, ...] = ()
    back: tuple[str, ...] = ()
    rows: int | None = None
    seed: int = 0


def missing_languages(rows: Mapping[str, pd.DataFrame]) -> list[str]:
    """The languages that other splits have and train lacks, sorted; `rows` is by split."""
    elsewhere = {
        language for split, frame in rows.items() if split != "train" for language in frame["language"].unique()
    }
    return sorted(elsewhere - set(rows["train"]["language"].unique()))


def translated_rows(train: pd.DataFrame, translate: Translate, language: str, *, rows: int, seed: int) -> pd.DataFrame:
    """New rows in `language`, from training rows whose query is English or has an English translation.

    Columns ``parent, way, language, query, query_en, target, label``; see `novel` for what is left out.
    """
    english = train["query"].where(train["language"] == ENGLISH, train["query_en"])
    sources = train.assign(query_en=english)[(english != "") & (train["language"] != language)]
    # Rows that say the same in several languages are one: each English query is translated for one of them.
    first = sources.drop_duplicates(["query_en", "target"])
    chosen = _some(first, first["query_en"], rows, seed=seed)
    pairs = pd.DataFrame({"language": ENGLISH, "text": chosen["query_en"]})
    made = chosen.assign(
        parent=chosen["id"], way=f"into {language}", query=translate(pairs, language), language=language
    )
    return novel(made, train)


def back_translated_rows(
    train: pd.DataFrame, translate: Translate, by_way_of: str, *, rows: int, seed: int
) -> pd.DataFrame:
    """New rows in the languages of train: queries translated to `by_way_of` and back, see `translated_rows`."""
    sources = train[train["language"] != by_way_of]
    chosen = _some(sources, sources["query"], rows, seed=seed)
    there = translate(pd.DataFrame({"language": chosen["language"], "text": chosen["query"]}), by_way_of)
    backs = pd.Series("", index=chosen.index, dtype="str")
    for language, own in chosen.groupby("language"):
        said = there[own.index][there[own.index] != ""]
        backs[said.index] = translate(pd.DataFrame({"language": by_way_of, "text": said}), str(language))
    return novel(chosen.assign(parent=chosen["id"], way=f"back from {by_way_of}", query=backs), train)


def novel(made: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """Those of the new rows that say something new and give nothing away.

    Left out are queries without a translation, and queries that stand in train already, in whatever language: they
    would teach nothing, and carry a row's label into the fold that holds the other one out.
    """
    known = set(map_distinct(train["query"], normalise_query))
    fresh = (made["query"] != "") & ~map_distinct(made["query"], normalise_query).isin(known)
    columns = ["parent", "way", "language", "query", "query_en", "target", "label"]
    kept = made.loc[fresh, columns]
    return kept.drop_duplicates(["language", "query", "target"]).reset_index(drop=True)


def with_folds(made: pd.DataFrame, train: pd.DataFrame, folds: pd.Series) -> pd.DataFrame:
    """The new rows, columns `COLUMNS`: an id of their own, and the fold of their parent.

    A training for fold ``k`` may take the rows whose ``fold`` is not ``k``: their parents are no held-out rows.

    Parameters
    ----------
    folds
        The fold of every row of `train`, aligned with it.
    """
    fold_of = pd.Series(folds.to_numpy(), index=pd.Index(train["id"]))
    ids = _new_ids(train["id"], len(made))
    return made.assign(id=ids, fold=fold_of.reindex(made["parent"]).to_numpy())[list(COLUMNS)]


def augment_run(
    run: RunFolder, task: str, work: Translating, asked: Augmenting, *, name: str | None = None
) -> pd.DataFrame:
    """Write the new rows of a task to the run's ``augmented/<task>/<name>.parquet``; new rows per way and language.

    Raises
    ------
    CompetitionError
        No language is missing, or nothing could be translated.
    """
    rows, started = run.rows(task), now()
    train = rows["train"]
    into = () if asked.back else asked.into or tuple(missing_languages(rows))
    if not into and not asked.back:
        raise CompetitionError(
            f"{task}: dev and test have no language that train lacks", advice="name languages: --into de,it"
        )
    n_rows = asked.rows or round(len(train) / train["language"].nunique())
    parts = [translated_rows(train, _translate(work), language, rows=n_rows, seed=asked.seed) for language in into] + [
        back_translated_rows(train, _translate(work), way, rows=n_rows, seed=asked.seed) for way in asked.back
    ]
    made = with_folds(pd.concat(parts, ignore_index=True), train, run.folds(task).align(train))
    if made.empty:
        languages = ", ".join((*into, *asked.back))
        fault = Fault(f"{task}: {languages}", "no new query", f"translations by {work.recipe}")
        raise CompetitionError("there are no rows to add", faults=[fault], advice="take another translation recipe")
    path = run.augmented(task, name or learner_name(work.recipe))
    manifest = {
        **{key: value for key, value in asdict(asked).items() if key != "seed"},
        "recipe": learner_name(work.recipe),
        "folds": run.folds(task).digest,
        PROVENANCE: provenance(seed=asked.seed, started=started),
    }
    with sealing(path, manifest) as temporary:
        made.to_parquet(temporary, index=False)
    log.info("%s: %s rows", path, f"{len(made):,}")
    counted = made.groupby(["way", "language"], sort=True)
    return counted.agg(rows=("id", "size"), queries=("query", "nunique"), positive_rate=("label", "mean")).reset_index()


def _translate(work: Translating) -> Translate:
    return lambda pairs, target: translate_pairs(pairs, replace(work, target=target))


def _some(rows: pd.DataFrame, queries: pd.Series, limit: int, *, seed: int) -> pd.DataFrame:
    """About `limit` rows, those of a query together."""
    numbered = rows.assign(query=queries, place=np.arange(len(rows))).reset_index(drop=True)
    return rows.iloc[limit_rows(numbered, limit, seed=seed)["place"].to_numpy()]


def _new_ids(ids: pd.Series, n: int) -> pd.Series:
    """Ids that no training row has, of the kind that they have."""
    if pd.api.types.is_integer_dtype(ids):
        return pd.Series(np.arange(n) + int(ids.max()) + 1, dtype="int64")
    return pd.Series([f"made-{number}" for number in range(n)], dtype="str")
