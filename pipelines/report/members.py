"""How a task's base learners go together: correlation, disagreement, weights, what each adds."""

from dataclasses import replace

import pandas as pd

from competition.errors import CompetitionError
from oof.crossfit import cross_fit
from oof.readers import read_combiner
from pipelines.ensembling import Gathered, make_combiner
from pipelines.explaining import contributions, member_tables
from pipelines.report.blocks import Block, Note, Section, Table, share, signed, table_of
from pipelines.report.figures import correlations, disagreements
from pipelines.report.views import TaskView

SLOW, YARDSTICK = ("stack", "blend"), "convex"
"""Ensembles whose fit takes minutes, and the combiner that says in their place what each learner adds."""


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
    """What each member adds to the chosen ensemble, or to the yardstick where that one takes long to fit."""
    chosen, seed = view.chosen, view.run.settings().seed
    gathered = _only(view.gathered, chosen.learners)
    train = gathered.frames["train"]
    if train.n_learners == 1:
        return (Note(f"{train.learners[0]} is the only base learner of {chosen.name}: all comes from it."),)
    if chosen.name not in SLOW:
        return (_adds(contributions(gathered, chosen.name, chosen.decisions, seed=seed), chosen.name),)
    decisions = cross_fit(make_combiner(YARDSTICK, gathered.frames, seed=seed), train).decisions
    table = contributions(gathered, YARDSTICK, decisions, seed=seed)
    note = (
        f"None of the ensembles above, but a convex mixture of all base learners of {chosen.name}, fitted again "
        "without each in turn. Of the ensembles themselves, which takes longer: "
        f"relstack ensemble explain --run {view.run.root} --task {view.task.name}"
    )
    return (_adds(table, "a convex mixture"), Note(note))


def _only(gathered: Gathered, learners: tuple[str, ...]) -> Gathered:
    frames = {split: frame.with_learners(learners) for split, frame in gathered.frames.items()}
    return replace(gathered, frames=frames)


def _adds(table: pd.DataFrame, to: str) -> Table:
    return table_of(table, f"What each adds to {to}", words={"adds": signed, "low": signed, "high": signed})
