"""What a task's scores are worth as probabilities and where they are cut; how training went."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from competition.judging import cut_metric
from oof.calibration import calibration_report, reliability_table
from oof.segments import SegmentCuts
from oof.store import PartKey
from pipelines.report.blocks import Block, Figure, Legend, Note, Section, Table, share, table_of
from pipelines.report.charts import N_COLOURS, Drawn, curves, learning, reliability
from pipelines.report.figures import cut_curve, learning_table
from pipelines.report.views import TaskView

TABLE_STEP = 5  # of the curve's cuts, in the table behind the chart
PROBE_DIGITS = 4
ONE_CUT = (
    "A curve cuts all rows at one threshold. The leaderboard's F1 is cross-fitted: every fold is cut where the others "
    "say, so the two differ a little."
)
PALE = " The first have a colour, the other models are pale; the one chosen above is dotted."


def threshold_section(view: TaskView) -> Section:
    """F1 over the threshold, with the chosen cut."""
    chosen = view.chosen
    curve_of = {each.name: cut_curve(view.train.labels, each.scores) for each in view.judged}
    names = [chosen.name, *(each.name for each in view.judged if each.name != chosen.name)]
    drawn = curves(
        f"{view.task.name}-cuts",
        {name: curve_of[name] for name in names},
        x="threshold",
        y="f1",
        labels=("threshold", "F1, out of fold"),
        mark=chosen.cuts.overall,
    )
    best = curve_of[chosen.name].nlargest(1, "f1").iloc[0]
    label = (
        f"Out-of-fold F1 over the threshold. {chosen.name} is cut at {chosen.cuts.overall:.3f}; "
        f"its F1 is highest, {best['f1']:.4f}, at {best['threshold']:.2f}."
    )
    figure = Figure(
        "F1 over the threshold",
        label,
        drawn.svg,
        _curve_table(curve_of),
        legend=_legend(names[:N_COLOURS]),
        probe=_probe(drawn, curve_of, chosen.name, {each.name: each.cuts.overall for each in view.judged}),
        note=ONE_CUT + (PALE if len(names) > N_COLOURS else ""),
    )
    metric = cut_metric(view.task.metric)
    lead = f"{chosen.name} is cut at {chosen.cuts.overall:.3f}, the mean of the best cuts of bootstrap draws. "
    if metric == "f1":
        lead += "Where scores are probabilities the best cut is near half the F1."
    else:
        lead += f"Best is what gives the highest {metric}: F1, which the curve shows, may be highest elsewhere."
    return Section("threshold", "Threshold", lead, (figure, *_language_cuts(chosen.cuts)))


def calibration_section(view: TaskView) -> Section:
    """Whether scores are probabilities: promised beside observed shares."""
    labels = view.train.labels
    models = {each.name: each for each in view.judged}
    names = list(dict.fromkeys([view.chosen.name, view.learners[0].name, _best_learner(view)]))
    lines = {name: reliability_table(labels, models[name].scores) for name in names}
    drawn = reliability(f"{view.task.name}-reliability", lines)
    own = lines[view.chosen.name]
    label = (
        f"Share of positives over mean score in {len(own)} bins of equally many rows; on the diagonal a score is a "
        f"probability. {view.chosen.name} is off by at most {own['gap'].abs().max():.3f}."
    )
    behind = pd.concat([frame.assign(model=name) for name, frame in lines.items()])
    table = table_of(
        behind[["model", *own.columns]], "Bins behind the chart", words={"positive_rate": share}, folded=True
    )
    figure = Figure("Reliability", label, drawn.svg, table, legend=_legend(lines))
    report = calibration_report(labels, view.chosen.scores, view.train.fold)
    methods = table_of(report, f"{view.chosen.name} as it is, and calibrated on the other folds")
    return Section("calibration", "Calibration", "A score of .7 should be right seven times in ten.", (figure, methods))


def learning_section(view: TaskView) -> Section:
    """The evaluations that networks made while they trained."""
    table = learning_table(
        (name, fold, view.run.parts.manifest(PartKey(view.task.name, name, fold)).details.get("evaluations", ()))
        for name in view.train.learners
        for fold in np.unique(view.train.fold).tolist()
    )
    title = "Learning curves"
    if table.empty:
        words = (
            "No base learner of this task was evaluated while it trained. Networks are if their recipe says so: "
            "training.evaluate = 4 asks for four evaluations per epoch."
        )
        return Section("learning", title, "", (Note(words),))
    blocks = [_learning_figure(view, str(name), frame) for name, frame in table.groupby("learner", sort=False)]
    return Section("learning", title, "On rows carved from each fold's own training side.", tuple(blocks))


def _best_learner(view: TaskView) -> str:
    return next(each.name for each in view.judged if each.kind == "base")


def _legend(names: Iterable[str]) -> tuple[Legend, ...]:
    return tuple(Legend(name, number % N_COLOURS) for number, name in enumerate(names))


def _curve_table(curve_of: dict[str, pd.DataFrame]) -> Table:
    first = next(iter(curve_of.values()))
    frame = pd.DataFrame({"threshold": first["threshold"], **{name: each["f1"] for name, each in curve_of.items()}})
    words = {"threshold": "{:.2f}".format}
    return table_of(frame[::TABLE_STEP], "F1 at thresholds .05 apart", words=words, folded=True)


def _probe(drawn: Drawn, curve_of: dict[str, pd.DataFrame], chosen: str, cuts: dict[str, float]) -> dict[str, object]:
    """What the page needs to tell F1, precision and recall at any threshold, and where that lies in the chart."""
    return {
        "left": drawn.left,
        "right": drawn.right,
        "top": drawn.top,
        "bottom": drawn.bottom,
        "low": drawn.low,
        "high": drawn.high,
        "lowest": drawn.lowest,
        "highest": drawn.highest,
        "chosen": chosen,
        "models": {
            name: {
                "cut": cuts[name],
                **{column: _rounded(curve[column]) for column in ("f1", "precision", "recall")},
            }
            for name, curve in curve_of.items()
        },
    }


def _rounded(values: pd.Series) -> list[float | None]:
    return [None if np.isnan(value) else round(value, PROBE_DIGITS) for value in values]


def _language_cuts(cuts: SegmentCuts) -> tuple[Block, ...]:
    if not cuts.by_segment:
        return (Note("One cut holds for all languages: cuts of their own did not pay in the nested estimate."),)
    frame = pd.DataFrame({"language": list(cuts.by_segment), "cut": list(cuts.by_segment.values())})
    return (table_of(frame, f"Cuts per language; {cuts.overall:.4f} for all others"),)


def _learning_figure(view: TaskView, name: str, frame: pd.DataFrame) -> Figure:
    folds = {str(fold): each for fold, each in frame.groupby("fold")}
    drawn = learning(f"{view.task.name}-{name}-learning", folds, y="auc", label="AUC")
    ends = ", ".join(f"fold {fold} {each['auc'].max():.4f}" for fold, each in folds.items())
    label = f"AUC of {name} while it trained, a line per fold. Best: {ends}."
    legend = tuple(Legend(f"fold {fold}", number % N_COLOURS) for number, fold in enumerate(folds))
    words = {"step": "{:,.0f}".format}
    table = table_of(frame.drop(columns="learner"), f"Evaluations of {name}", words=words, folded=True)
    return Figure(name, label, drawn.svg, table, legend=legend)
