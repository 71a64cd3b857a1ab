"""Audits of likeness: near-duplicates within train and across splits, and which categories train knows."""

import pandas as pd

from competition.categories import category_coverage
from competition.near_duplicates import near_duplicate_report
from competition.verdicts import Audited, Level, Subject, Verdict

MANY_ALIKE = 0.01  # of the judged rows: a score on them flatters


def audit_near_duplicates(subject: Subject) -> Audited:
    """Pairs that stand in train too but for a typo or a word, and training pairs that are alike with both labels."""
    point, judged = "near-duplicates", subject.judged
    report = near_duplicate_report(subject.rows, subject.task)
    table = report.across if len(report.across) else report.clusters
    conflicts = f"{report.n_conflicts:,} clusters of like pairs in train have both labels"
    if judged is None:
        return Audited(Verdict(point, "note" if report.n_conflicts else "ok", conflicts), table)
    pair = report.across[(report.across["key"] == "pair") & (report.across["split"] == judged)].iloc[0]
    found = f"{pair['near']:,} rows of {judged} ({pair['near_share']:.1%}) have a near-duplicate in train; {conflicts}"
    if pair["near_share"] > MANY_ALIKE:
        return Audited(Verdict(point, "warning", found, "hold like queries out together, or expect less"), table)
    level: Level = "note" if pair["near"] or report.n_conflicts else "ok"
    return Audited(Verdict(point, level, found), table)


def audit_coverage(subject: Subject) -> Audited | None:
    """How much of the judged split's category paths train knows: whole, in part, or not at all."""
    point, judged = "category coverage", subject.judged
    if not subject.task.target_is_category or judged is None:
        return None
    splits = [split for split in subject.rows if split != "train"]
    tables = [category_coverage(subject.rows["train"], subject.rows[split]).assign(split=split) for split in splits]
    table = pd.concat(tables, ignore_index=True)
    shares = table[table["split"] == judged].set_index("coverage")["share"]
    words = ", ".join(f"{share:.1%} {name}" for name, share in shares.items())
    unseen = float(shares.get("unseen", 0.0))
    return Audited(Verdict(point, "note" if unseen else "ok", f"category paths of {judged} in train: {words}"), table)
