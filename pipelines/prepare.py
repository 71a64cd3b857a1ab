"""The first stages: read, clean and translate a competition's files into a run folder, and deal the folds."""

import csv
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.artefacts import (
    MANIFEST,
    PROVENANCE,
    beside,
    hashes,
    inspect,
    is_finished,
    replacing,
    sealing,
    sha256,
    write_manifest,
)
from competition.cleaning import clean, duplicate_report, normalise_query
from competition.dealing import deal
from competition.errors import CompetitionError, Fault, MismatchError
from competition.fold_store import Folds, load_folds, save_folds
from competition.folds import CATEGORY_KINDS, FoldPlan
from competition.mapping import joined_files
from competition.plan_choice import choose_plan, judged_split
from competition.progress import progress
from competition.regular_files import refuse_irregular
from competition.rows import digest_rows, find_files, read_competition
from competition.tasks import Task
from pipelines.contests import contest_of, keep_contest
from pipelines.locks import alone, sweep
from pipelines.provenance import now, provenance
from pipelines.run_folder import MAKE_AGAIN, RunFolder, RunSettings, read_split, read_translations_of

log = logging.getLogger(__name__)

AUTO = "auto"
TRANSLATION_COLUMNS = ("language", "origin_query", "translated_query")


def prepare(run: RunFolder, settings: RunSettings) -> None:
    """Rows and translations in the run folder; done already if they are there from the same files.

    A preparation that was cut off is completed.

    Raises
    ------
    CompetitionError
        The input files have faults (all are named), or the run holds rows of other files.
    """
    if settings.relabel_unknown and settings.translations is None:
        raise CompetitionError(
            "queries that are not English are told by their translations, and there are none",
            advice="make them with relstack translate --english, and name them with --translations",
        )
    started, contest = now(), contest_of(settings)
    data = read_competition(Path(settings.data), [contest.task(name) for name in settings.tasks])
    translations = read_translations(Path(settings.translations)) if settings.translations else None
    cleaned = {name: clean_splits(splits, contest.task(name), settings) for name, splits in data.items()}
    _refuse_plan(settings, {contest.task(name): splits["train"] for name, splits in cleaned.items()})
    with alone(run.root / "rows"):
        keep_contest(run, settings)
        for name, splits in cleaned.items():
            _refuse_other_rows(run, name, splits)
        present = settings.model_copy(update={"tasks": tuple(cleaned)})
        run.agree_on(present)
        for name, splits in cleaned.items():
            sweep(run.rows_file(name, "train").parent)
            for split, rows in splits.items():
                _write_once(rows, run.rows_file(name, split))
            _seal_rows(run, contest.task(name), settings, started=started)
            _tell(name, splits)
        if translations is not None:
            keep_translations(translations, run, source=settings.translations)


def clean_splits(splits: dict[str, pd.DataFrame], task: Task, settings: RunSettings) -> dict[str, pd.DataFrame]:
    """Cleaned rows; train limited to about `settings.limit` rows, dev and test always whole."""
    cleaned = {}
    with progress(f"clean {task.name} rows", total=sum(map(len, splits.values()))) as advance:
        for split, rows in splits.items():
            cleaned[split] = clean(rows, settings.cleaning, task, may_drop=split == "train")
            advance(len(rows))
    if settings.limit is not None:
        cleaned["train"] = limit_rows(cleaned["train"], settings.limit, seed=settings.seed)
    return cleaned


def limit_rows(rows: pd.DataFrame, limit: int, *, seed: int) -> pd.DataFrame:
    """At most `limit` rows, whole queries at random, in the rows' own order."""
    if len(rows) <= limit:
        return rows
    codes, queries = pd.factorize(rows["query"])
    order = np.random.default_rng(seed).permutation(len(queries))
    sizes = np.bincount(codes)[order]
    chosen = order[np.cumsum(sizes) <= limit]
    return rows[np.isin(codes, chosen)].reset_index(drop=True)


def split(run: RunFolder) -> dict[str, Folds]:
    """Task name -> its folds, dealt now or earlier; folds are never dealt twice."""
    run.settings()  # refuses a folder that is no run, before a lock is left in it
    with alone(run.root / "folds"):
        return _split(run)


def _split(run: RunFolder) -> dict[str, Folds]:
    settings, started = run.settings(), now()
    folds: dict[str, Folds] = {}
    for task in run.tasks():
        rows = run.rows(task.name)
        sweep(run.folds_folder(task.name))
        saved = sorted(run.folds_folder(task.name).glob("*.json"))
        if saved:
            folds[task.name] = load_folds(run.folds_folder(task.name), saved[0].stem)
            folds[task.name].align(rows["train"])
            continue
        kind = plan_kind(settings, task, rows)
        plan = _plan(settings, kind)
        train, judged = rows["train"], judged_split(rows)
        folds[task.name] = save_folds(
            run.folds_folder(task.name),
            kind,
            rows=train,
            dealt=deal(plan, train, task=task, like=None if judged is None else rows[judged]),
            plan=plan,
            task=task,
            rows_digest=digest_rows(train),
            record={PROVENANCE: provenance(seed=settings.seed, started=started)},
        )
    return folds


def plan_kind(settings: RunSettings, task: Task, rows: dict[str, pd.DataFrame]) -> str:
    """The kind of plan asked for, or for ``auto`` the one that looks most like the rows to be judged."""
    asked = _asked_kind(settings, task)
    if asked != AUTO:
        return asked
    kind, reason = choose_plan(rows, task)
    log.info("%s: fold plan %s (%s)", task.name, kind, reason)
    return kind


def _asked_kind(settings: RunSettings, task: Task) -> str:
    """``auto``, or a kind: of ``--plan KIND`` for all tasks, or of ``QC=query-group,QI=...`` for some of them."""
    by_task = _kinds_by_task(settings)
    if by_task:
        return by_task.get(task.name, AUTO)
    if settings.plan in CATEGORY_KINDS and not task.target_is_category:
        log.info("%s: its target is no category, so %s is used", task.name, task.default_plan)
        return task.default_plan
    return settings.plan


def _kinds_by_task(settings: RunSettings) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in settings.plan.split(",") if "=" in pair)


def _plan(settings: RunSettings, kind: str) -> FoldPlan:
    return FoldPlan(kind=kind, n_splits=settings.folds, seed=settings.seed, depth=settings.depth)


def _refuse_plan(settings: RunSettings, train: Mapping[Task, pd.DataFrame]) -> None:
    """Refuse a plan that cannot be before it stands in a run's settings; `train` are the tasks' rows."""
    unknown = sorted(_kinds_by_task(settings).keys() - {task.name for task in train})
    if unknown:
        raise CompetitionError(
            "--plan names tasks that are not there",
            faults=[Fault(name, "has no rows", ", ".join(task.name for task in train)) for name in unknown],
            advice="write --plan KIND for all tasks, or TASK=KIND,... for some",
        )
    for task, rows in train.items():
        if (kind := _asked_kind(settings, task)) != AUTO:
            _plan(settings, kind).group(rows.head(1), task)


def read_translations(path: Path) -> pd.DataFrame:
    """A table of English translations: language, query (normalised), query_en; the first of several counts.

    Raises
    ------
    CompetitionError
        It is not there, not UTF-8, or has not the columns language, origin_query, translated_query; every
        faulty line is named.
    """
    faults: list[Fault] = []
    kept: dict[tuple[str, str], str] = {}
    try:
        refuse_irregular(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in TRANSLATION_COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                faults.append(Fault(f"{path.name}:1", f"no column {', '.join(missing)}", ",".join(TRANSLATION_COLUMNS)))
            for row in reader if not missing else ():
                language, query, english = (row[name] for name in TRANSLATION_COLUMNS)
                if language is None or query is None or english is None or None in row:
                    faults.append(Fault(f"{path.name}:{reader.line_num}", "too few or too many cells", "three cells"))
                    continue
                kept.setdefault((language, normalise_query(query)), english.strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        faults.append(Fault(path.name, str(error), "a readable UTF-8 CSV file"))
    if faults:
        raise CompetitionError(
            "the translations cannot be used",
            faults=faults,
            advice="mend the lines named; relstack translate --data DIR --out FILE.csv writes such a file",
        )
    columns = {
        "language": [language for language, _ in kept],
        "query": [query for _, query in kept],
        "query_en": list(kept.values()),
    }
    return pd.DataFrame(columns, dtype="str")


def keep_translations(translations: pd.DataFrame, run: RunFolder, *, source: str | None = None) -> None:
    """Write the run's ``translations.parquet``: those of `translations` that its queries need.

    Parameters
    ----------
    translations
        As `read_translations` gives them.
    source
        The file that they were read from, for the manifest; None if they were made for this run.

    Raises
    ------
    MismatchError
        The run has others.
    """
    with alone(run.translations_file):
        _keep_translations(translations, run, source=source)


def _keep_translations(translations: pd.DataFrame, run: RunFolder, *, source: str | None) -> None:
    started = now()
    queries = {
        (language, normalise_query(query))
        for task in run.tasks()
        for name in run.splits(task.name)
        for language, query in read_split(run, task.name, name)[["language", "query"]]
        .drop_duplicates()
        .itertuples(index=False)
    }
    pairs = zip(translations["language"], translations["query"], strict=True)
    wanted = translations[[pair in queries for pair in pairs]].reset_index(drop=True)
    foreign = {pair for pair in queries if pair[0] != "en"}
    found = set(zip(wanted["language"], wanted["query"], strict=True))
    log.info(
        "translations: %s of %s distinct non-English queries",
        f"{len(foreign & found):,}",
        f"{len(foreign):,}",
    )
    if run.translations_file.is_file():
        if not read_translations_of(run).equals(wanted):
            raise MismatchError("this run was made with other translations", advice="use another --run folder")
        if beside(run.translations_file).is_file():
            return
    made = provenance(seed=run.settings().seed, started=started)
    record = {"sources": {} if source is None else source_files([Path(source)]), PROVENANCE: made}
    with sealing(run.translations_file, record) as path:
        wanted.to_parquet(path, index=False)


def source_files(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What a manifest says of the files that something was read from: by path their bytes and SHA-256."""
    return {str(path): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths}


def _seal_rows(run: RunFolder, task: Task, settings: RunSettings, *, started: str) -> None:
    """The manifest of a task's rows, if it is not there yet; its presence says that all splits are."""
    folder, data = run.rows_file(task.name, "train").parent, Path(settings.data)
    if is_finished(folder):
        return
    found = [*find_files(data, [task]).values(), *joined_files(data, [task])]
    manifest = {
        "task": task.name,
        "cleaning": settings.cleaning,
        "limit": settings.limit,
        "rows": {
            split: digest_rows(pd.read_parquet(run.rows_file(task.name, split))) for split in run.splits(task.name)
        },
        "sources": source_files(found),
        PROVENANCE: provenance(seed=settings.seed, started=started),
        "files": hashes(folder),
    }
    write_manifest(folder / MANIFEST, manifest)


def _refuse_other_rows(run: RunFolder, task: str, splits: dict[str, pd.DataFrame]) -> None:
    folder = run.rows_file(task, "train").parent
    had, is_whole = run.splits(task), is_finished(folder)
    if is_whole and (damage := inspect(folder / MANIFEST).faults):
        raise CompetitionError(f"the rows of {task} in the run are damaged", faults=damage, advice=MAKE_AGAIN)
    faults = [
        Fault(f"{task}/{split}", "the input file changed since the run was made")
        for split in had
        if split in splits and digest_rows(read_split(run, task, split)) != digest_rows(splits[split])
    ]
    if set(had) - set(splits) or (is_whole and set(had) != set(splits)):
        faults.append(Fault(task, f"splits {sorted(splits)}", f"{sorted(had)}, as the run was made"))
    if faults:
        raise MismatchError("this run holds other rows", faults=faults, advice="use another --run folder")


def _write_once(rows: pd.DataFrame, path: Path) -> None:
    if path.is_file():
        return
    with replacing(path) as temporary:
        rows.to_parquet(temporary, index=False)


def _tell(task: str, splits: dict[str, pd.DataFrame]) -> None:
    words = ", ".join(f"{len(rows):,} {split}" for split, rows in splits.items())
    report = duplicate_report(splits["train"])
    log.info(
        "%s: %s rows; train repeats %s pairs, %s with conflicting labels",
        task, words, f"{report.n_repeats:,}", f"{report.n_conflicting_pairs:,}",
    )  # fmt: skip
