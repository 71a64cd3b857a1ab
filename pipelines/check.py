"""`relstack check`: every audit of a competition's files, one verdict per point, the tables behind them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from competition import likeness_audits, pair_audits, range_audits, shift_audits, text_audits
from competition.contest import BUILT_IN_CONTEST, Contest
from competition.errors import Fault
from competition.inspection import InspectedFile, InspectedFolder, inspect_competition
from competition.progress import progress
from competition.raw_rows import Finding
from competition.tasks import Task
from competition.verdicts import Audit, Audited, Level, Oddity, Subject, Verdict, verdict_on
from pipelines.run_folder import english_of

AUDITS: tuple[Audit, ...] = (
    Audit("rows", text_audits.audit_labels),
    Audit("texts", text_audits.audit_gaps),
    Audit("characters", text_audits.audit_characters),
    Audit("category paths", text_audits.audit_paths),
    Audit("language codes", text_audits.audit_language_codes),
    Audit("repeated pairs", pair_audits.audit_repeats),
    Audit("conflicting labels", pair_audits.audit_conflicts),
    Audit("what dev shares with train", partial(pair_audits.audit_leaks, "dev")),
    Audit("what test shares with train", partial(pair_audits.audit_leaks, "test")),
    Audit("what folds share", pair_audits.audit_folds),
    Audit("rows per language", shift_audits.audit_languages),
    Audit("category shift", shift_audits.audit_categories),
    Audit("category coverage", likeness_audits.audit_coverage),
    Audit("near-duplicates", likeness_audits.audit_near_duplicates),
    Audit("label prior per language", shift_audits.audit_priors),
    Audit("train or test", shift_audits.audit_adversarial),
    Audit("expected F1", range_audits.audit_range),
    Audit("fold plan", range_audits.audit_plan),
)
"""What is asked about the sound rows of every task, in the order of the page. A new audit is one more entry."""

FOLDER = "folder"


@dataclass(frozen=True, eq=False)
class Page:
    """What `relstack check` prints.

    Attributes
    ----------
    verdicts
        One line per point: task, point, verdict, found, advice.
    faults
        Every fault: where, found, expected.
    tables
        Title -> the table behind a verdict.
    """

    verdicts: pd.DataFrame
    faults: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]

    @property
    def has_faults(self) -> bool:
        """Whether anything must be mended before a run."""
        return bool((self.verdicts["verdict"] == "fault").any())

    def __repr__(self) -> str:
        found = ", ".join(f"{count} {verdict}" for verdict, count in self.verdicts["verdict"].value_counts().items())
        return f"<Page: {found}>"

    def _repr_html_(self) -> str:
        return self.verdicts.to_html(index=False)


def check(
    folder: Path,
    tasks: Sequence[str],
    *,
    translations: pd.DataFrame | None = None,
    contest: Contest = BUILT_IN_CONTEST,
) -> Page:
    """The page on the files of `folder`.

    Parameters
    ----------
    translations
        The English of queries, as `pipelines.prepare.read_translations` gives it.

    Raises
    ------
    CompetitionError
        The folder is not there or has none of the files; whatever else is wrong stands on the page.
    """
    inspected = inspect_competition(folder, [contest.task(name) for name in tasks])
    audited: list[tuple[str, Audited]] = [*_of_folder(inspected)]
    for name, files in inspected.files.items():
        audited += ((name, each) for each in _of_task(contest.task(name), files, translations))
    faults = [
        *inspected.faults,
        *(f for files in inspected.files.values() for file in files.values() for f in file.faults),
    ]
    lines = [
        {"task": name, "point": v.point, "verdict": v.level, "found": v.found, "advice": v.advice}
        for name, v in ((name, each.verdict) for name, each in audited)
    ]
    return Page(
        pd.DataFrame(lines),
        pd.DataFrame([vars(fault) for fault in faults], columns=["where", "found", "expected"]),
        {f"{name}: {each.verdict.point}": each.table for name, each in audited if len(each.table)},
    )


def _of_folder(inspected: InspectedFolder) -> Iterator[tuple[str, Audited]]:
    if inspected.faults:
        advice = "name and keep the files as the message says"
        yield FOLDER, Audited(Verdict("files", "fault", _first_of(inspected.faults), advice))
    if inspected.remarks:
        names = [remark.where for remark in inspected.remarks]
        oddity = Oddity("a file that nobody reads", "warning", names, f"expected {inspected.remarks[0].expected}")
        yield FOLDER, verdict_on("names", [oddity], fine="")


def _of_task(task: Task, files: Mapping[str, InspectedFile], translations: pd.DataFrame | None) -> Iterator[Audited]:
    """The verdict on faults and on the files' layout, then one per audit of the sound rows."""
    yield _on_faults(files)
    yield _on_layout(files)
    rows = {split: _as_audited(file.rows, translations) for split, file in files.items() if len(file.rows)}
    if "train" not in rows:
        yield Audited(Verdict("audits", "warning", "no sound row of train: nothing else can be asked"))
        return
    subject = Subject(task, rows, {split: file.path.name for split, file in files.items()})
    with progress(f"{task.name} audits", total=len(AUDITS)) as advance:
        for audit in AUDITS:
            if (audited := audit.look(subject)) is not None:
                yield audited
            advance(1)


def _as_audited(rows: pd.DataFrame, translations: pd.DataFrame | None) -> pd.DataFrame:
    """`rows` with ``query_en`` and ``null_target``, nulls filled (see `Subject`)."""
    english = english_of(rows, translations)
    if translations is not None:
        english = english.where((english != "") | (rows["language"] != "en"), rows["query"])
    null = rows["target"].isna()
    return rows.assign(target=rows["target"].fillna(""), query_en=english, null_target=null)


def _on_faults(files: Mapping[str, InspectedFile]) -> Audited:
    faults = [fault for file in files.values() for fault in file.faults]
    n_rows = sum(len(file.rows) for file in files.values())
    if not faults:
        return Audited(Verdict("faults", "ok", f"none in {len(files)} files, {n_rows:,} rows"))
    advice = f"mend them; the {n_rows:,} rows without a fault are looked at below"
    return Audited(Verdict("faults", "fault", _first_of(faults), advice))


def _first_of(faults: Sequence[Fault]) -> str:
    per_file = Counter(fault.where.split(":")[0] for fault in faults)
    words = ", ".join(f"{name} {n:,}" for name, n in per_file.items())
    return f"{len(faults):,} fault{'s' if len(faults) > 1 else ''} ({words}); first: {faults[0]}"


def _on_layout(files: Mapping[str, InspectedFile]) -> Audited:
    """What is odd about lines and fields."""
    kinds: dict[str, list[str]] = {}
    for file in files.values():
        for remark in file.remarks:
            kinds.setdefault(remark.found, []).append(_place(file, remark))
    level: Level = "note"
    oddities = [Oddity(kind, level, places, "harmless, but somebody made it by hand") for kind, places in kinds.items()]
    return verdict_on("lines and fields", oddities, fine="all lines alike, no further fields")


def _place(file: InspectedFile, remark: Finding) -> str:
    return f"{file.path.name}:{remark.line}" if remark.line else file.path.name
