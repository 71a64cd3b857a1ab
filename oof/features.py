"""Level-2 features: what a stacker sees of a row beside its base scores.

logit__*
    Each learner's own log-odds, the base of every stacker.
rank__*
    Each learner's percentile rank: free of its calibration.
logit_mean, logit_std, logit_min, logit_max, disagreement
    Level and spread of the learners. A LightGBM stacker with such features gained 1.0 point over plain
    averaging (KDD Cup 2022 ESCI).
query_*, target_* (size, min, median, max, gap, rank)
    How the row stands among the rows of its query and of its target. The per-query minimum, median, maximum
    and rank of the base scores gained .8 and .4 point (public reports of two contests).
language, query_script
    A stacker beats a blend where quality differs by segment and it sees the segment.
unseen_language, unseen_target
    Whether the models that scored the row had not seen its language, its target: the real shift of the 2025 contest
    was languages never seen in training (4 of 10 in QC, 6 of 13 in QI).
lengths, scripts, levels, overlap
    Where lexical matching is to be trusted; part of the same 1.0 point. Query plus translation gained .5 to
    .7.

Nothing here looks at labels. In a frame with folds, ranks and group statistics are taken **within the
fold**: all scores of a fold come from models that saw none of its labels, whereas a score of another fold,
from a model that trained on this row, would carry its label over. So a row's features depend on its own
fold only, and dev or test frames (no folds) are treated as one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from oof.context import NOWHERE, Context, members_by, with_mean
from oof.frame import PredictionFrame
from oof.paths import path_features

Floats = npt.NDArray[np.float64]

WORD_CHARACTER = r"[\pL\pM\pN]"  # marks included: Thai and Hindi words hold them, Python's \w cuts there
GROUPS = {"query": ["language", "query"], "target": ["target"]}
NOVELTY = ("unseen_language", "unseen_target")
SCRIPTS = (
    "Latin",
    "Cyrillic",
    "Greek",
    "Arabic",
    "Hebrew",
    "Devanagari",
    "Thai",
    "Hangul",
    "Han",
    "Hiragana",
    "Katakana",
)
CATEGORICAL = ("language", "query_script")  # codes whose order means nothing


def level2_features(frame: PredictionFrame, *, languages: Sequence[str], paths: bool = False) -> pd.DataFrame:
    """The features of every row, ``(n_rows, n_features)`` float32 columns; NaN is missing.

    Parameters
    ----------
    frame
        Columns `query`, `target` and `query_en` that it lacks give no features.
    languages
        The languages known in training; the code of a language is its place here, of any other it is missing.
    paths
        With those of `oof.paths.path_features`.
    """
    parts = [
        _score_features(frame),
        *(_group_features(frame, name, keys) for name, keys in GROUPS.items() if set(keys) <= set(frame.rows)),
        language_codes(frame.rows["language"], languages).to_frame("language"),
        frame.rows[[name for name in NOVELTY if name in frame.rows]].astype(np.float64),
        text_features(frame.rows),
        *([path_features(frame)] if paths else []),
    ]
    return pd.concat([part.astype(np.float32) for part in parts], axis=1)


def with_novelty(rows: pd.DataFrame, learned: pd.DataFrame) -> pd.DataFrame:
    """The rows with `unseen_language` and `unseen_target`: whether no row of `learned` has it.

    `learned` is what the models that scored these rows were trained on: another set of rows in every fold.

    Examples
    --------
    >>> rows = pd.DataFrame({"language": ["en", "fr"], "target": ["a", "b"]})
    >>> with_novelty(rows, rows[:1])[["unseen_language", "unseen_target"]].values.tolist()
    [[False, False], [True, True]]
    """
    columns = dict(zip(NOVELTY, ("language", "target"), strict=True))
    return rows.assign(**{name: ~rows[column].isin(learned[column]) for name, column in columns.items()})


def percentile_ranks(frame: PredictionFrame) -> Floats:
    """Each learner's scores as percentile ranks in (0, 1), ``(n_rows, n_learners)``.

    Taken within the fold if there is one, see above. Equal scores share the mean of their ranks.

    Examples
    --------
    >>> rows = pd.DataFrame({"id": [1, 2, 3, 4], "language": "en"})
    >>> percentile_ranks(PredictionFrame(rows, np.array([[0.2], [0.9], [0.5], [0.5]]), ("a",))).T
    array([[0.125, 0.875, 0.5  , 0.5  ]])
    """
    if frame.context is None:
        return _ranks(frame).to_numpy()
    return frame.context.features(frame, "ranks", of_file=_ranks, of_new=_ranks_of_new).to_numpy()


def language_codes(language: pd.Series, languages: Sequence[str]) -> pd.Series:
    """The place of each row's language among `languages`, NaN for others.

    Examples
    --------
    >>> language_codes(pd.Series(["fr", "de"]), ["en", "fr"]).tolist()
    [1.0, nan]
    """
    return language.map({name: float(code) for code, name in enumerate(languages)}).astype(np.float64)


def text_features(rows: pd.DataFrame) -> pd.DataFrame:
    """Lengths, scripts, depth and word overlap of the texts that `rows` have.

    `*_length` counts characters, `*_words` words; `*_non_latin` is the share of letters of other scripts,
    NaN without letters; `target_levels` is the depth of a category path (for free text: the parts between
    commas); `query_overlap`, `query_en_overlap` are the shares of the query's words that the target has,
    NaN without words; `query_script` is the place in `SCRIPTS` of the script of most of its letters, NaN without any.

    Examples
    --------
    >>> texts = {"query": ["zapato rojo"], "query_en": ["red shoe"], "target": ["men, boys,red shoe"]}
    >>> rows = pd.DataFrame(texts)
    >>> text_features(rows)[["target_levels", "query_overlap", "query_en_overlap"]].values.tolist()
    [[2.0, 0.0, 1.0]]
    """
    import pyarrow.compute as pc

    names = [name for name in ("query", "target", "query_en") if name in rows]
    texts = {name: _arrow_texts(rows[name].fillna("")) for name in names}
    columns: dict[str, Floats] = {}
    for name in ("query", "target"):
        if name in texts:
            letters = np.asarray(pc.count_substring_regex(texts[name], r"\pL"))
            latin = np.asarray(pc.count_substring_regex(texts[name], r"\p{Latin}"))
            columns[f"{name}_length"] = np.asarray(pc.utf8_length(texts[name]))
            columns[f"{name}_words"] = np.asarray(pc.count_substring_regex(texts[name], f"{WORD_CHARACTER}+"))
            columns[f"{name}_non_latin"] = _share(letters - latin, letters)
    if "query" in texts:
        columns["query_script"] = _scripts(texts["query"])
    if "target" in texts:
        commas, in_names = (np.asarray(pc.count_substring(texts["target"], mark)) for mark in (",", ", "))
        columns["target_levels"] = commas - in_names + 1  # as in competition.categories
        for name in ("query", "query_en"):
            if name in texts:
                columns[f"{name}_overlap"] = _word_overlap(texts[name], texts["target"])
    return pd.DataFrame(columns, index=rows.index, dtype=np.float64)


def _arrow_texts(texts: pd.Series) -> Any:
    """An Arrow array in one piece: columns of over 131,072 rows are read in several, each of which counts its rows."""
    import pyarrow as pa

    array = pa.array(texts, type=pa.large_string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _score_features(frame: PredictionFrame) -> pd.DataFrame:
    logits, ranks = frame.logits(), percentile_ranks(frame)
    columns = {f"logit__{name}": logits[:, j] for j, name in enumerate(frame.learners)}
    columns |= {f"rank__{name}": ranks[:, j] for j, name in enumerate(frame.learners)}
    columns |= {
        "logit_mean": logits.mean(axis=1),
        "logit_std": logits.std(axis=1),
        "logit_min": logits.min(axis=1),
        "logit_max": logits.max(axis=1),
        "disagreement": _mean_pairwise_difference(frame.scores),
    }
    return pd.DataFrame(columns, index=frame.rows.index)


def _ranks(frame: PredictionFrame) -> pd.DataFrame:
    grouped = pd.DataFrame(frame.scores).groupby(_fold_or_all(frame))
    return (grouped.rank() - 0.5).div(grouped[0].transform("size"), axis=0)


def _ranks_of_new(frame: PredictionFrame, context: Context) -> pd.DataFrame:
    """`_ranks` of every row alone among those of the context."""
    ranks = []
    for scores, others in zip(frame.scores.T, context.sorted_scores.T, strict=True):
        below, equal = np.searchsorted(others, scores, "left"), np.searchsorted(others, scores, "right")
        ranks.append((below + equal + 1) / 2)  # the mean rank of the equals and itself, less a half
    return pd.DataFrame(np.column_stack(ranks) / (context.frame.n_rows + 1))


def _group_features(frame: PredictionFrame, name: str, keys: list[str]) -> pd.DataFrame:
    """How the row stands in its group, see `_groups_of_file`."""
    if frame.context is None:
        return _groups_of_file(frame, name, keys)
    return frame.context.features(
        frame,
        name,
        of_file=lambda file: _groups_of_file(file, name, keys),
        of_new=lambda new, context: _groups_of_new(new, context, name, keys),
    )


def _groups_of_new(frame: PredictionFrame, context: Context, name: str, keys: list[str]) -> pd.DataFrame:
    """`_groups_of_file` of every row alone among those of the context."""
    own, members = with_mean(frame.logits()), context.members(keys)
    found = {kind: np.empty_like(own) for kind in ("min", "median", "max", "gap", "rank")}
    size = np.empty(frame.n_rows)
    for key, rows in members_by(frame.rows, keys).items():
        others = np.sort(context.logits[members.get(key, NOWHERE)], axis=0)
        middle = len(others) // 2, (len(others) + 1) // 2
        found["min"][rows] = _in_order(others, own[rows], 0)
        found["max"][rows] = _in_order(others, own[rows], len(others))
        found["median"][rows] = sum(_in_order(others, own[rows], place) for place in middle) / 2
        above = [
            np.searchsorted(-each[::-1], -values, "left") for each, values in zip(others.T, own[rows].T, strict=True)
        ]
        found["rank"][rows] = 1 + np.column_stack(above)
        size[rows] = len(others) + 1
    found["gap"] = found["max"] - own
    columns = {f"{name}_size": size}
    for kind, values in found.items():
        named = zip(("mean", *frame.learners), values.T, strict=True)
        columns |= {f"{name}_{kind}__{learner}": column.astype(np.float32) for learner, column in named}
    return pd.DataFrame(columns)


def _in_order(others: Floats, own: Floats, place: int) -> Floats:
    """What stands at `place` when each row of `own` is put among `others`, sorted: ``(n_own, n_columns)``."""
    lowest = others[place - 1] if place > 0 else -np.inf
    highest = others[place] if place < len(others) else np.inf
    return np.clip(own, lowest, highest)


def _groups_of_file(frame: PredictionFrame, name: str, keys: list[str]) -> pd.DataFrame:
    """How the row stands in its group, by the mean logit and by each learner's logit.

    `*_size` rows in the group; `*_min`, `*_median`, `*_max` of its logits; `*_gap` to the highest (0 for the row that
    has it); `*_rank` from the top (1 is the highest, equals share the better rank).
    """
    logits = frame.logits()
    columns = dict(zip(["mean", *frame.learners], [logits.mean(axis=1), *logits.T], strict=True))
    values = pd.DataFrame(columns, index=frame.rows.index)
    code = frame.rows.groupby([_fold_or_all(frame), *keys], sort=False, dropna=False).ngroup().to_numpy()
    grouped = values.groupby(code)
    of_group = {"min": grouped.min(), "median": grouped.median(), "max": grouped.max()}
    parts = {kind: table.iloc[code].set_axis(values.index) for kind, table in of_group.items()}
    parts |= {"gap": parts["max"] - values, "rank": grouped.rank(method="min", ascending=False)}
    sizes = pd.DataFrame({f"{name}_size": np.bincount(code)[code].astype(np.float64)}, index=values.index)
    named = [part.astype(np.float32).add_prefix(f"{name}_{kind}__") for kind, part in parts.items()]
    return pd.concat([sizes, *named], axis=1)


def _fold_or_all(frame: PredictionFrame) -> npt.NDArray[np.int8]:
    return frame.fold if "fold" in frame.rows else np.zeros(frame.n_rows, dtype=np.int8)


def _mean_pairwise_difference(scores: Floats) -> Floats:
    """The mean of ``|p_i - p_j|`` over all pairs of learners, ``(n_rows,)``; 0 for a single learner."""
    n = scores.shape[1]
    if n == 1:
        return np.zeros(len(scores))
    coefficients = 2.0 * np.arange(n) - (n - 1)  # sorted, the i-th is added i times and subtracted n - 1 - i times
    return np.asarray(np.sort(scores, axis=1) @ coefficients / (n * (n - 1) / 2), dtype=np.float64)


def _word_overlap(texts: Any, targets: Any) -> Floats:
    """The share of a text's distinct words (lower case) that its target has, ``(n_rows,)``; NaN without."""
    import pyarrow as pa

    (row, words), (target_row, target_words) = _words(texts), _words(targets)
    code = pa.chunked_array([words, target_words]).combine_chunks().dictionary_encode().indices.to_numpy()
    n_codes = int(code.max(initial=0)) + 1
    wanted = np.unique(row * n_codes + code[: len(row)])
    found = wanted[np.isin(wanted, target_row * n_codes + code[len(row) :])]
    n_wanted, n_found = (np.bincount(keys // n_codes, minlength=len(texts)) for keys in (wanted, found))
    return _share(n_found, n_wanted)


def _words(texts: Any) -> tuple[npt.NDArray[np.int64], Any]:
    """Every word of every text: the rows that they stand in, and the words, as an Arrow array."""
    import pyarrow.compute as pc

    lists = pc.split_pattern_regex(pc.utf8_lower(texts), f"[^{WORD_CHARACTER[1:-1]}]+")
    row, word = pc.list_parent_indices(lists), pc.list_flatten(lists)
    real = pc.not_equal(word, "")
    return row.filter(real).to_numpy(), word.filter(real)


def _scripts(texts: Any) -> Floats:
    """The place in `SCRIPTS` of the script of most letters, ``(n_rows,)``; of equals the first, NaN without letters."""
    import pyarrow.compute as pc

    encoded = texts.dictionary_encode()
    counts = [np.asarray(pc.count_substring_regex(encoded.dictionary, rf"\p{{{name}}}")) for name in SCRIPTS]
    most = np.where(np.any(counts, axis=0), np.argmax(counts, axis=0), np.nan)
    return np.asarray(most[encoded.indices.to_numpy()], dtype=np.float64)


def _share(part: npt.NDArray[np.integer], whole: npt.NDArray[np.integer]) -> Floats:
    """`part` / `whole`, NaN where there is no whole."""
    return np.asarray(np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0))
