"""How a task's base learners go together: correlation, disagreement, weights, what each adds."""

import pandas as pd

from competition.errors import CompetitionError
from oof.crossfit import cross_fit
from oof.readers import read_combiner
from pipelines.ensembling import make_combiner
from pipelines.explaining import contributions, member_tables
from pipelines.report.blocks import Block, Note, Section, Table, share, signed, table_of
from pipelines.report.figures import correlations, disagreements
from pipelines.report.views import TaskView

YARDSTICK = "convex"
"""The combiner that says what each learner adds: a fit takes a second, where the tuned ones take minutes."""


def agreement_section(view: TaskView) -> Section:
    """Score correlation and disagreement of the base learners."""
    title, names = "Base learners together", list(view.train.learners)
    if len(names) == 1:
        return Section("agreement", title, "", (Note(f"{names[0]} is the only base learner: nothing to compare."),))
    ranks = correlations(view.train.scores, names)
    apart = disagreements({each.name: each.decisions for each in view.learners})
    blocks = (
        table_of(ranks, "Rank correlation of out-of-fold scores", tinted=names, style="heat"),
        table_of(
            apart,
            "Share of rows decided differently",
            tinted=names,
            style="heat",
            words=dict.fromkeys(names, share),
        ),
    )
    lead = "Learners that are good and disagree are worth combining; two that say the same are worth one."
    return Section("agreement", title, lead, blocks)


def ensemble_section(view: TaskView) -> Section:
    """What every ensemble is made of, and what each base learner adds."""
    title = "Ensembles"
    if not view.ensembles:
        advice = f"There is no ensemble yet: relstack stack --run {view.run.root} --task {view.task.name}"
        return Section("ensemble", title, "", (Note(advice),))
    blocks = [block for each in view.ensembles for block in _weights(view, each.name)]
    lead = "Weights say what an ensemble leans on; what a learner adds is found by leaving it out."
    return Section("ensemble", title, lead, (*blocks, *_what_each_adds(view)))


def _weights(view: TaskView, name: str) -> list[Block]:
    """The tables of one ensemble; a note where its files are not to be read."""
    try:
        tables = member_tables(name, read_combiner(view.run.ensemble(view.task.name, name)))
    except CompetitionError as error:
        return [Note(f"{name}: {error.summary}")]
    filled = {title: frame for title, frame in tables.items() if len(frame)}
    return [_weight_table(title, frame) for title, frame in filled.items()] or [Note(f"{name} weighs nothing.")]


def _weight_table(title: str, frame: pd.DataFrame) -> Table:
    drawn = [name for name in ("share", "weight", "gain") if name in frame and (frame[name] >= 0).all()]
    return table_of(
        frame,
        title,
        tinted=[name for name in drawn if len(frame) > 1],
        style="bars" if drawn else "plain",
        folded="per language" in title or "importance" in title,
    )


def _what_each_adds(view: TaskView) -> tuple[Block, ...]:
    train, seed = view.train, view.run.settings().seed
    if train.n_learners == 1:
        return (Note(f"{train.learners[0]} is the only base learner: all comes from it."),)
    combiner = make_combiner(YARDSTICK, view.gathered.frames, seed=seed)
    decisions = cross_fit(combiner, train).decisions
    table = contributions(view.gathered, YARDSTICK, decisions, seed=seed)
    words = {"adds": signed, "low": signed, "high": signed}
    note = (
        "Told by a convex blend, which is fitted again without each learner in turn; for the ensembles above "
        f"themselves, which takes longer: relstack ensemble explain --run {view.run.root} --task {view.task.name}"
    )
    return (table_of(table, "F1 of the blend without a learner, and what it adds", words=words), Note(note))
