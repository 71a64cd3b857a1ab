"""Features of every pair of a corpus, computed once for all folds, base learners and processes: a mapped file."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.artefacts import beside, inspect, sealing
from competition.errors import CompetitionError, Fault
from competition.progress import progress
from competition.versions import version_of
from pipelines.backbones.candidates import QUERY
from pipelines.backbones.protocol import Workspace
from pipelines.locks import alone

log = logging.getLogger(__name__)

PIECE = 100_000
FORMAT = 1  # a table of another format is made again
COMPUTED_BY = ("relstack", "numpy", "pandas", "rapidfuzz", "scikit-learn", "torch")

Pieces = Callable[[], Iterator[np.ndarray]]


def corpus_features(
    rows: pd.DataFrame,
    space: Workspace,
    *,
    made_of: Mapping[str, Any],
    pieces: Pieces,
    computed: Callable[[pd.DataFrame], np.ndarray],
) -> np.ndarray:
    """The features of rows, float32 ``(n_rows, n_features)``: looked up, if the workspace has a folder for tables.

    Parameters
    ----------
    made_of
        What features depend on besides the corpus, as plain values; `kind` is the beginning of the file's name.
    pieces
        The features of all pairs of the corpus, some of them at a time, in order.
    computed
        The features of rows that no table has.
    """
    origin = {"corpus": space.corpus.digest, "versions": [FORMAT, *_versions()], **made_of}
    digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:16]
    if space.recent is None:
        return _features(rows, space, digest, made_of=made_of, pieces=pieces, computed=computed)
    return space.recent.of(
        rows, digest, lambda: _features(rows, space, digest, made_of=made_of, pieces=pieces, computed=computed)
    )


@lru_cache(maxsize=1)
def _versions() -> tuple[str, ...]:
    return tuple(map(version_of, COMPUTED_BY))


def _features(
    rows: pd.DataFrame,
    space: Workspace,
    digest: str,
    *,
    made_of: Mapping[str, Any],
    pieces: Pieces,
    computed: Callable[[pd.DataFrame], np.ndarray],
) -> np.ndarray:
    if space.tables is None:
        return computed(rows)
    table = feature_table(space.tables / f"{made_of['kind']}-{digest}.npy", len(space.corpus.pairs), pieces)
    places = space.corpus.places(rows)
    found: np.ndarray = table[places]
    if (new := places < 0).any():
        found[new] = computed(rows[new])
    return found


def feature_table(path: Path, n_rows: int, pieces: Pieces) -> np.ndarray:
    """The table in the file `path`, float32 ``(n_rows, n_features)``, read from disk as it is looked at.

    Where there is no such file, it is written first, one of `pieces` after the other, so that no more than one of them
    is in memory; one that is not the file its manifest names is made again. Of several processes one writes, the others
    wait for it.

    Raises
    ------
    CompetitionError
        The file is no such table, though its manifest says that it is whole.
    """
    with alone(path):
        if not _is_whole(path):
            with sealing(path, {}) as temporary:
                _write(temporary, n_rows, pieces())
    try:
        table = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise _damaged(path, str(error)) from error
    if len(table) != n_rows:
        raise _damaged(path, f"{len(table):,} rows, not {n_rows:,}")
    return table


def whole_queries(pairs: pd.DataFrame, *, size: int = PIECE) -> Iterator[pd.DataFrame]:
    """Sorted pairs in pieces of `size` rows or a few more, none of which cuts a query's candidates apart.

    Column `among` tells the candidates, as in `candidates.with_candidates`.

    Examples
    --------
    >>> pairs = pd.DataFrame({"language": "en", "query": ["a", "a", "b", "c", "c"]})
    >>> [piece["query"].tolist() for piece in whole_queries(pairs, size=1)]
    [['a', 'a'], ['b'], ['c', 'c']]
    """
    starts = np.flatnonzero(~pairs.duplicated(QUERY).to_numpy())
    wanted = np.searchsorted(starts, np.arange(0, len(pairs), size))
    cuts = [*starts[np.unique(wanted[wanted < len(starts)])], len(pairs)]
    for start, end in pairwise(cuts):
        piece = pairs.iloc[start:end]
        yield piece.assign(among=piece.groupby(QUERY, sort=False).ngroup())


def _is_whole(path: Path) -> bool:
    """Whether the table is there, and the one that was written: a changed byte would change scores unseen."""
    if not beside(path).is_file():
        return False
    found = path.stat() if path.is_file() else None
    faults = _faults(path, None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino))
    if faults:
        log.warning("%s is damaged and made again: %s", path, faults[0])
    return not faults


@lru_cache(maxsize=8)
def _faults(path: Path, stamp: tuple[int, int, int] | None) -> tuple[Fault, ...]:
    """What is wrong with a table; hashed once in a process as long as its `stamp` stays."""
    return inspect(beside(path)).faults


def _damaged(path: Path, found: str) -> CompetitionError:
    fault = Fault(str(path), found, "the features of all pairs of the run")
    return CompetitionError("a table of features is damaged", faults=[fault], advice="delete it: it is made again")


def _write(path: Path, n_rows: int, pieces: Iterator[np.ndarray]) -> None:
    """Write numpy's own format, by ordinary writes: a full disk is an error of theirs, in a mapped file it kills."""
    written = 0
    with path.open("wb") as file, progress(f"{path.name.lstrip('.').split('-')[0]} features", total=n_rows) as advance:
        for values in pieces:
            if not written:
                header = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, values.shape[1])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(values, dtype="<f4").data)
            written += len(values)
            advance(len(values))
    assert written == n_rows, f"{written} rows of {n_rows}"
