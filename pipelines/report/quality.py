"""How good every model of a task is: the leaderboard, F1 per language and fold, confusion per language."""

import math

import numpy as np
import pandas as pd

from pipelines.report.blocks import Block, Figure, Note, Section, Table, Words, bounds, share, signed, table_of
from pipelines.report.charts import intervals
from pipelines.report.figures import confusion_by, f1_by
from pipelines.report.views import TaskView
from submissions.leaderboard import Entry

COUNTS = "rows"


def leaderboard_section(view: TaskView) -> Section:
    """Every model with its interval, its difference to the best and its cut."""
    best = view.entries[0]
    own_f1 = f"F1 {best.f1:.4f} ({bounds(*_interval(best))} at 95 %)"
    if best.metric is None:
        lead = f"Out of fold, {best.name} is best with {own_f1}. {_level_with_the_best(view.entries)}"
    else:
        lead = (
            f"Out of fold, {best.name} is best with {view.task.metric} {best.metric:.4f}, which the competition is "
            "judged by: it ranks the models, more is better. "
            f"It has {own_f1}; intervals and differences are of F1 alone."
        )
    return Section("leaderboard", "Leaderboard", lead, (_leaderboard_table(view), _interval_chart(view)))


def breakdown_section(view: TaskView) -> Section:
    """F1 per language and per fold, on labelled dev too."""
    train = view.train
    decisions = {each.name: each.decisions for each in view.judged}
    blocks: list[Block] = [
        _heat(f1_by(train.labels, decisions, train.rows["language"].to_numpy()), "Out-of-fold F1 by language"),
        _heat(f1_by(train.labels, decisions, train.fold), "Out-of-fold F1 by fold"),
        *_dev_breakdown(view),
    ]
    lead = "The stronger the tint the better, over a whole table. The last line says how many rows a column rests on."
    return Section("breakdown", "Languages and folds", lead, tuple(blocks))


def confusion_section(view: TaskView) -> Section:
    """What the chosen model decides, per language."""
    train, chosen = view.train, view.chosen
    table = confusion_by(train.labels, chosen.decisions, train.rows["language"].to_numpy())
    blocks: list[Block] = [_confusion_table(table, f"{chosen.name}, out of fold")]
    if (labelled := view.labelled_dev) is not None and view.dev is not None and chosen.dev_decisions is not None:
        dev = view.dev.take(labelled)
        table = confusion_by(dev.labels, chosen.dev_decisions[labelled], dev.rows["language"].to_numpy())
        blocks.append(_confusion_table(table, f"{chosen.name}, labelled rows of dev"))
    lead = f"What {chosen.name} finds, what it takes for relevant and is not, and what it misses."
    return Section("confusion", "Confusion by language", lead, tuple(blocks))


def _interval(entry: Entry) -> tuple[float, float]:
    return _number(entry.f1_low), _number(entry.f1_high)


def _difference(entry: Entry) -> tuple[float, float]:
    return _number(entry.difference_low), _number(entry.difference_high)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _level_with_the_best(entries: tuple[Entry, ...]) -> str:
    """Which models cannot be told from the best, in words."""
    level = [each.name for each in entries[1:] if each.difference_high is not None and each.difference_high >= 0]
    if len(entries) == 1:
        return "It is the only one."
    if not level:
        return "All others are worse by more than chance explains."
    return f"It cannot be told from {', '.join(level)}: the interval of the difference reaches 0."


def _leaderboard_table(view: TaskView) -> Table:
    frame = pd.DataFrame(
        {
            "model": each.name,
            "kind": each.kind,
            _ranking(view): _number(each.metric),
            "F1": _number(each.f1),
            "95 % interval": bounds(*_interval(each)),
            "to the best": _number(each.difference),
            "its interval": "the best" if place == 0 else bounds(*_difference(each)),
            "AUC": _number(each.auc),
            "F1 at .5": _number(each.f1_at_half),
            "std over folds": _number(each.f1_fold_std),
            "cut": _number(each.threshold),
            "decided positive": _number(each.positive_rate),
            f"{view.task.metric} on dev": _number(each.dev_metric),
            "F1 on dev": _number(each.dev_f1),
            "rows per second": _number(each.rows_per_second),
        }
        for place, each in enumerate(view.entries)
    )
    words: dict[str, Words] = {
        "95 % interval": str,
        "to the best": signed,
        "its interval": str,
        "decided positive": share,
        "rows per second": "{:,.0f}".format,
    }
    optional = (_ranking(view), f"{view.task.metric} on dev", "F1 on dev")
    frame = frame.drop(columns=[name for name in optional if frame[name].isna().all()])
    return table_of(frame, f"Leaderboard of {view.task.name}, cross-fitted on {view.train.n_rows:,} rows", words=words)


def _ranking(view: TaskView) -> str:
    """The column of what ranks the models where that is not F1."""
    return f"{view.task.metric} (ranks)"


def _interval_chart(view: TaskView) -> Figure:
    names = [each.name for each in view.entries]
    drawn = intervals(
        f"{view.task.name}-intervals",
        names,
        [_number(each.f1) for each in view.entries],
        [_interval(each) for each in view.entries],
    )
    frame = pd.DataFrame(
        {
            "model": names,
            "low": [_number(each.f1_low) for each in view.entries],
            "F1": [_number(each.f1) for each in view.entries],
            "high": [_number(each.f1_high) for each in view.entries],
        }
    )
    ranked = "" if view.entries[0].metric is None else f" by {view.task.metric}"
    label = (
        f"F1 of {len(names)} models with 95 % intervals over groups, from {names[0]}, the best{ranked}, to {names[-1]}."
    )
    return Figure("F1 and its 95 % interval", label, drawn.svg, table_of(frame, "F1 and its interval", folded=True))


def _heat(frame: pd.DataFrame, caption: str) -> Table:
    """The F1 table with its cells tinted; the line of counts is not."""
    counts = frame["model"] == COUNTS
    columns = [name for name in frame.columns if name != "model"]
    tinted = table_of(frame[~counts], caption, tinted=columns, style="heat")
    below = table_of(frame[counts].astype(dict.fromkeys(columns, np.int64)), caption)
    return Table(tinted.caption, tinted.head, (*tinted.rows, *below.rows), tinted.numeric, style="heat")


def _dev_breakdown(view: TaskView) -> tuple[Block, ...]:
    labelled = view.labelled_dev
    if labelled is None or view.dev is None:
        return (Note("There is no dev file with labels: how languages that train lacks would fare is not known."),)
    dev = view.dev.take(labelled)
    decisions = {each.name: each.dev_decisions[labelled] for each in view.judged if each.dev_decisions is not None}
    table = f1_by(dev.labels, decisions, dev.rows["language"].to_numpy())
    unseen = sorted(set(dev.rows["language"]) - set(view.train.rows["language"]))
    heat = _heat(table, "F1 by language on the labelled rows of dev")
    return (heat, Note(f"Not in train: {', '.join(unseen)}.")) if unseen else (heat,)


def _confusion_table(frame: pd.DataFrame, caption: str) -> Table:
    return table_of(frame, caption, words={"precision": share, "recall": share})
