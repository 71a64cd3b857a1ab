"""How much work a run is: rows of every split and tokens of a row, from the run or, cheaply, from the raw files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from competition.mapping import fulfilling
from competition.readers import read_raw
from competition.rows import find_files
from competition.tasks import SPLITS, Task
from pipelines.config import CausalLoraRecipe, Recipe
from pipelines.contests import contest_of
from pipelines.run_folder import RunFolder, RunSettings

SAMPLE = 2000  # rows whose texts are looked at
BLOCK = 2**24  # bytes
SPECIAL = 3  # tokens around and between two texts
WIDE = chr(0x0E80)  # from here on: Chinese, Japanese, Korean
TOKENS_PER_CHARACTER = 0.28, 0.70
"""Below and from `WIDE`: least squares over 18,000 texts of `cup`, between .25 to .40 and .64 (Gemma 3), .28 to .35 and
.77 (XLM-R); no better than one part in ten for a single language."""


@dataclass(frozen=True)
class Workload:
    """The rows of one task of a run.

    Attributes
    ----------
    n_train, n_unseen
        Labelled rows, and rows of dev and test together.
    query_tokens, target_tokens, english_tokens
        Mean tokens of a row's texts; estimated from characters. English is 0 where there are no translations.
    """

    task: str
    folds: int
    n_train: int
    n_unseen: int
    query_tokens: float
    target_tokens: float
    english_tokens: float = 0.0

    @property
    def n_rows(self) -> int:
        """All rows."""
        return self.n_train + self.n_unseen

    @property
    def n_fitted(self) -> int:
        """Rows that one fold trains on."""
        return self.n_train - self.n_train // self.folds

    @property
    def n_scored(self) -> int:
        """Rows that one fold scores: held out, dev and test."""
        return self.n_train // self.folds + self.n_unseen

    def as_one_training(self) -> "Workload":
        """The same labelled rows for a training that holds none out and scores none: pre-training for another task."""
        return replace(self, folds=self.n_train + 1, n_unseen=0)  # of so many folds, one holds out nothing

    def tokens(self, recipe: Recipe) -> float:
        """Mean tokens that a network with this recipe reads of a row."""
        english = self.english_tokens or self.query_tokens
        if isinstance(recipe, CausalLoraRecipe):
            template = recipe.text.template
            parts = {"{query}": self.query_tokens, "{english}": english, "{target}": self.target_tokens}
            own = sum(count for name, count in parts.items() if name in template)
            return min(own + n_tokens(template), float(recipe.max_length))
        query = {"original": self.query_tokens, "english": english, "both": self.query_tokens + self.english_tokens}
        whole = query[recipe.text.view] + self.target_tokens + SPECIAL
        return min(whole, float(getattr(recipe, "max_length", whole)))


def n_tokens(text: str) -> float:
    """About how many tokens a multilingual tokenizer makes of a text.

    Examples
    --------
    >>> round(n_tokens("wireless gaming mouse"), 2), round(n_tokens("無線マウス"), 2)
    (5.88, 3.5)
    """
    narrow, wide = TOKENS_PER_CHARACTER
    n_wide = sum(character >= WIDE for character in text)
    return narrow * (len(text) - n_wide) + wide * n_wide


def workloads(run: RunFolder, settings: RunSettings) -> list[Workload]:
    """The work of every task: of the run's rows where it is prepared, else of the raw files; nothing is written.

    Raises
    ------
    CompetitionError
        The folder with the raw files is not as expected.
    """
    contest = contest_of(settings)
    asked = [contest.task(name) for name in settings.tasks]
    files = find_files(Path(settings.data), asked)
    tasks = [task for task in asked if (task.name, "train") in files]
    return [_workload(run, settings, task, {s: files.get((task.name, s)) for s in SPLITS}) for task in tasks]


def _workload(run: RunFolder, settings: RunSettings, task: Task, files: dict[str, Path | None]) -> Workload:
    train = files["train"]
    assert train is not None, "only tasks with a train file are asked for"
    counts = {split: _count(run.rows_file(task.name, split), path, task, split=split) for split, path in files.items()}
    if settings.limit is not None:
        counts["train"] = min(counts["train"], settings.limit)
    texts = _sampled_texts(train, task)
    query, target = (sum(n_tokens(pair[i]) for pair in texts) / max(1, len(texts)) for i in range(2))
    return Workload(
        task=task.name,
        folds=settings.folds,
        n_train=counts["train"],
        n_unseen=counts["dev"] + counts["test"],
        query_tokens=query,
        target_tokens=target,
        english_tokens=query if settings.translations else 0.0,
    )


def _count(prepared: Path, raw: Path | None, task: Task, *, split: str) -> int:
    """Rows of a prepared split, else those rows of the raw file that are of the split: without conditions its lines."""
    if prepared.is_file():
        return rows_of_parquet(prepared)
    if raw is None:
        return 0
    if conditions := task.layout.conditions(split):
        found = read_raw(raw, [*conditions], encoding=task.layout.encoding, delimiter=task.layout.delimiter)
        there = {name: values for name, values in conditions.items() if name in found.columns}
        return len(fulfilling(found, there).lines)
    if raw.suffix == ".parquet":
        return rows_of_parquet(raw)
    with raw.open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b""))
    return lines - (raw.suffix in (".csv", ".tsv"))


def rows_of_parquet(path: Path) -> int:
    """Rows of a Parquet file, from its footer."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def _sampled_texts(path: Path, task: Task) -> list[tuple[str, str]]:
    """Query and target of about `SAMPLE` rows from all over a file of any format: a file may be sorted by language.

    Columns that come from a second file are not looked at: such targets are longer than these.
    """
    targets = task.layout.targets or (task.target,)
    wanted = (task.query, *targets)
    if path.suffix == ".parquet":
        columns = _sampled_columns(path, wanted)
    else:
        with TemporaryDirectory() as folder:
            few = Path(folder) / f"few{path.suffix}"
            few.write_bytes(b"".join(_sampled_lines(path)))
            columns = read_raw(few, wanted, encoding=task.layout.encoding, delimiter=task.layout.delimiter).columns
    queries, known = columns.get(task.query, []), [columns[name] for name in targets if name in columns]
    pairs = zip(queries, zip(*known, strict=False), strict=False)
    whole = [(q, parts) for q, parts in pairs if all(isinstance(text, str) for text in (q, *parts))]
    return [(str(q), " ".join(map(str, parts))) for q, parts in whole]


def _sampled_columns(path: Path, wanted: Sequence[str]) -> dict[str, list[object]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    there = [name for name in wanted if name in file.schema_arrow.names]
    if not file.num_row_groups:
        return {}
    middle = file.read_row_group(file.num_row_groups // 2, columns=there)
    rows = list(range(0, middle.num_rows, max(1, middle.num_rows // SAMPLE)))
    return dict(middle.take(rows).to_pydict())


def _sampled_lines(path: Path) -> Iterator[bytes]:
    """The first line, which may be a header, and whole lines at even distances."""
    size = path.stat().st_size
    with path.open("rb") as file:
        yield file.readline()
        last = file.tell()
        for start in range(last, size, max(1, size // SAMPLE)):
            if start < last:
                continue
            file.seek(start)
            if start > last:
                file.readline()
            yield file.readline()
            last = file.tell()
