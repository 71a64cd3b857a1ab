"""relstack report: its figures are the leaderboard's, it says what is missing, and no text becomes markup."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from pages import HOSTILE, Tables, made_up_pool, page_of, unpacked

from competition.artefacts import MANIFEST, hashes, read_manifest, write_manifest
from competition.errors import CompetitionError
from competition.metrics import f1
from competition.tasks import QI
from pipelines.cli import main
from pipelines.distilling import Distillation, distil
from pipelines.ensembling import Gathered, complete_learners, ensemble, read_ensemble
from pipelines.explaining import explain
from pipelines.report.blocks import Figure, Note, Table, say, table_of
from pipelines.report.browsing import choose_rows, packed, pool_of
from pipelines.report.charts import N_COLOURS, learning
from pipelines.report.cutting import calibration_section, learning_section, threshold_section
from pipelines.report.effort import effort_section
from pipelines.report.figures import correlations, cut_curve, learning_table
from pipelines.report.members import agreement_section, ensemble_section
from pipelines.report.quality import breakdown_section, confusion_section, leaderboard_section
from pipelines.report.rendering import render
from pipelines.report.students import student_section
from pipelines.report.views import TaskView, view_of
from pipelines.report.writing import SECTIONS, report
from pipelines.run_folder import RunFolder
from submissions.leaderboard import Leaderboard

MANY, SHOWN = 300_000, 20_000
SMALL = 10_000_000  # bytes


def relstack(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


@pytest.fixture(scope="module")
def view(finished_run: Path) -> TaskView:
    run = RunFolder(finished_run)
    return view_of(run, QI, complete_learners(run, "QI"))


@pytest.fixture(scope="module")
def page(finished_run: Path) -> Tables:
    return Tables((finished_run / "report.html").read_text(encoding="utf-8"))


def without_dev(view: TaskView) -> TaskView:
    """The view of a run whose data has no dev file."""
    gathered = Gathered({"train": view.train}, view.gathered.rates, view.gathered.sources)
    judged = tuple(replace(each, dev_scores=None, dev_decisions=None) for each in view.judged)
    entries = tuple(replace(each, dev_f1=None, dev_f1_seen_languages=None) for each in view.entries)
    return replace(view, gathered=gathered, judged=judged, entries=entries)


def notes(blocks: tuple[object, ...]) -> str:
    return " ".join(block.text for block in blocks if isinstance(block, Note))


def test_run_ends_by_naming_the_report_and_the_command_prints_where_it_wrote(
    finished_run: Path, tmp_path: Path
) -> None:
    assert (finished_run / "report.html").is_file()
    assert "report" in (finished_run / "timings.csv").read_text()
    before = (finished_run / "timings.csv").read_bytes()
    done = relstack("report", "--run", finished_run, "--out", tmp_path / "new" / "page.html", "--rows", 50)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "new" / "page.html")
    html = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert len(Tables(html).rows()[0]["id"]) == 50
    assert (finished_run / "timings.csv").read_bytes() == before, "a reader's command leaves the run as it is"
    assert not list((tmp_path / "new").glob(".*")), "no partial file stays behind"


def test_the_leaderboard_of_the_page_is_that_of_the_run(finished_run: Path, page: Tables) -> None:
    board = Leaderboard.read_csv(finished_run / "leaderboard.csv")
    caption = next(each for each in page.tables if each.startswith("Leaderboard of QI"))
    head, *lines = page.tables[caption]
    shown = [dict(zip(head, line, strict=True)) for line in lines]
    assert [each["model"] for each in shown] == [entry.name for entry in board.entries]
    for line, entry in zip(shown, board.entries, strict=True):
        assert line["F1"] == say(entry.f1)
        assert line["95 % interval"] == f"{say(entry.f1_low)} to {say(entry.f1_high)}"
        assert (line["cut"], line["AUC"], line["F1 on dev"]) == (
            say(entry.threshold),
            say(entry.auc),
            say(entry.dev_f1),
        )


def test_a_metric_of_the_contest_s_own_is_shown_and_said_to_rank(view: TaskView) -> None:
    entries = [replace(each, metric=1 - each.f1, dev_metric=0.5 + 0.01 * place, difference_high=-0.01)
               for place, each in enumerate(view.entries)]  # fmt: skip
    ranked = Leaderboard.from_entries(entries).entries
    assert ranked[0].name != view.entries[0].name
    judged = {each.name: each for each in view.judged}
    others = replace(view, task=replace(QI, metric="accuracy"), entries=ranked,
                     judged=tuple(judged[each.name] for each in ranked))  # fmt: skip
    section = leaderboard_section(others)
    assert f"{ranked[0].name} is best with accuracy {ranked[0].metric:.4f}" in section.lead
    assert "it ranks the models" in section.lead
    assert "worse by more than chance" not in section.lead
    table, figure = section.blocks
    assert "the best by accuracy" in figure.label
    shown = [[cell.text for cell in row] for row in table.rows]
    for column, expected in (("accuracy (ranks)", "metric"), ("accuracy on dev", "dev_metric")):
        place = table.head.index(column)
        assert [row[place] for row in shown] == [say(getattr(each, expected)) for each in ranked]
    assert not [name for name in leaderboard_section(view).blocks[0].head if "ranks" in name]


def test_cuts_are_said_to_be_those_of_the_contest_s_metric(view: TaskView) -> None:
    own = threshold_section(view)
    assert "near half the F1" in own.lead
    assert threshold_section(replace(view, task=replace(QI, metric="auc"))).lead == own.lead
    other = threshold_section(replace(view, task=replace(QI, metric="accuracy")))
    assert "highest accuracy" in other.lead
    assert "half the F1" not in other.lead
    assert "its F1 is highest" in other.blocks[0].label


def test_f1_per_language_and_fold_is_that_of_the_saved_decisions(finished_run: Path, page: Tables) -> None:
    run = RunFolder(finished_run)
    train = run.rows("QI")["train"]
    fold = run.folds("QI").align(train)
    labels = train["label"].to_numpy()
    decisions = read_ensemble(run, "QI", "stack", "oof", train["id"])["decision"].to_numpy()
    for caption, by in (("Out-of-fold F1 by language", train["language"]), ("Out-of-fold F1 by fold", fold)):
        head, *lines = page.tables[caption]
        line = next(dict(zip(head, each, strict=True)) for each in lines if each[0] == "stack")
        assert line["all"] == say(f1(labels, decisions))
        for value in by.unique():
            rows = (by == value).to_numpy()
            assert line[str(value)] == say(f1(labels[rows], decisions[rows]))


def test_confusion_counts_every_row_once(page: Tables, view: TaskView) -> None:
    head, total, *lines = page.tables[f"{view.chosen.name}, out of fold"]
    kinds = ["true positives", "false positives", "false negatives", "true negatives"]
    counts = [[int(line[head.index(kind)].replace(",", "")) for kind in kinds] for line in (total, *lines)]
    assert sum(counts[0]) == view.train.n_rows
    assert np.array_equal(np.sum(counts[1:], axis=0), counts[0])


def test_every_section_answers_and_every_chart_has_words_and_a_table(view: TaskView) -> None:
    for section in SECTIONS:
        made = section(view)
        assert made.blocks or section is student_section, made.title
        for block in made.blocks:
            if isinstance(block, Figure):
                assert len(block.label) > 20
                assert block.table.rows
                assert block.svg.startswith("<svg ")
                assert "<style" not in block.svg, "it would hold for the whole page"


def test_bars_begin_at_0_and_heat_at_the_lowest_value() -> None:
    frame = pd.DataFrame({"model": ["a", "b", "c"], "share": [0.8, 0.2, -0.1]})

    def levels(style: Any, part: pd.DataFrame = frame) -> list[float | None]:
        return [row[1].level for row in table_of(part, "Shares", tinted=["share"], style=style).rows]

    assert levels("bars") == [1.0, pytest.approx(0.25), None]
    assert levels("heat", frame[:2]) == [1.0, 0.0]
    assert levels("bars", frame.assign(share=0.0)) == [0.0, 0.0, 0.0]
    assert levels("bars", frame.assign(share=np.nan)) == [None, None, None]


def test_curves_of_all_models_are_drawn_though_colours_run_out(view: TaskView) -> None:
    names = [f"model {number}" for number in range(N_COLOURS + 2)]
    judged = tuple(replace(view.chosen, name=name) for name in names)
    (figure, *_) = threshold_section(replace(view, judged=judged)).blocks
    assert isinstance(figure, Figure)
    assert len(set(re.findall(r"stroke: var\(--line-\d\)", figure.svg))) == N_COLOURS
    assert figure.svg.count("stroke-opacity: 0.4") == 2
    assert [each.name for each in figure.legend] == names[:N_COLOURS]
    assert "pale" in figure.note
    assert figure.probe["lowest"] < figure.probe["highest"]
    (usual, *_) = threshold_section(view).blocks
    assert isinstance(usual, Figure)
    assert "cross-fitted" in usual.note
    assert "pale" not in usual.note


def test_what_each_adds_is_told_of_the_chosen_ensemble_where_that_is_quick(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    slow = ensemble_section(view_of(run, QI, complete_learners(run, "QI")))
    assert any(getattr(block, "caption", "") == "What each adds to a convex mixture" for block in slow.blocks)
    assert "None of the ensembles above" in notes(slow.blocks)
    shutil.rmtree(run.root / "ensembles")
    ensemble(run, "QI", "greedy")
    quick = ensemble_section(view_of(run, QI, complete_learners(run, "QI")))
    (table,) = [block for block in quick.blocks if getattr(block, "caption", "").startswith("What each adds")]
    assert isinstance(table, Table)
    assert table.caption == "What each adds to greedy"
    explained = explain(run, "QI", ["greedy"])["QI greedy: what each base learner adds"]
    assert [row[2].text for row in table.rows] == [say(value) for value in explained["without"]]
    assert not notes(quick.blocks)


def test_students_stand_in_the_report_with_what_dev_says_of_them(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    distil(run, Distillation(task="QI", student="lexical-linear", name="small"))
    assert relstack("leaderboard", "--run", run.root).exit_code == 0
    (entry,) = [each for each in Leaderboard.read_csv(run.leaderboard_file).entries if each.kind == "student"]
    head, line = Tables(report(run, n_rows=10).read_text(encoding="utf-8")).tables["Students of QI"]
    shown = dict(zip(head, line, strict=True))
    assert (shown["model"], shown["F1 on dev"], shown["cut"]) == (
        "student/small",
        say(entry.dev_f1),
        say(entry.threshold),
    )
    assert "Students of QI" not in Tables((finished_run / "report.html").read_text(encoding="utf-8")).tables


def test_the_chosen_cut_and_the_curve_s_top_are_named(view: TaskView) -> None:
    figure = threshold_section(view).blocks[0]
    assert isinstance(figure, Figure)
    assert f"cut at {view.chosen.cuts.overall:.3f}" in figure.label
    curve = cut_curve(view.train.labels, view.chosen.scores)
    best = curve.loc[curve["f1"].idxmax()]
    assert best["f1"] == pytest.approx(f1(view.train.labels, view.chosen.scores >= best["threshold"]))
    assert f"{best['f1']:.4f}, at {best['threshold']:.2f}" in figure.label
    probed = figure.probe["models"][view.chosen.name]["f1"]
    assert probed == [round(value, 4) for value in curve["f1"]]


def test_what_a_run_lacks_is_said_and_nothing_fails(view: TaskView, finished_run: Path, tmp_path: Path) -> None:
    bare = without_dev(view)
    assert "no dev file with labels" in notes(breakdown_section(bare).blocks)
    assert len(confusion_section(bare).blocks) == 1
    assert set(pool_of(bare).rows["fold"]) == {"0", "1", "2"}
    no_ensembles = replace(view, judged=tuple(each for each in view.judged if each.kind == "base"))
    assert "relstack stack" in notes(ensemble_section(no_ensembles).blocks)
    assert no_ensembles.chosen.kind == "base"
    assert threshold_section(no_ensembles).blocks
    assert calibration_section(no_ensembles).blocks
    assert "training.evaluate" in notes(learning_section(view).blocks)
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    (copy / "timings.csv").unlink()
    assert "no timings.csv" in notes(effort_section(RunFolder(copy), [view]).blocks)


def test_a_run_with_one_base_learner_and_nothing_else_has_its_report(finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    for gone in ("ensembles", "parts/QI/lexical"):
        shutil.rmtree(copy / gone)
    html = report(RunFolder(copy), n_rows=10).read_text(encoding="utf-8")
    assert "lexical-linear is the only base learner" in html
    assert "There is no ensemble yet" in html


def test_an_ensemble_that_cannot_be_read_costs_its_weights_alone(finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    run, folder = RunFolder(copy), copy / "ensembles" / "QI" / "blend"
    (folder / "combiner.json").write_text('{"kind": "of old"}', encoding="utf-8")
    write_manifest(folder / MANIFEST, {**read_manifest(folder / MANIFEST), "files": hashes(folder)})
    section = ensemble_section(view_of(run, QI, complete_learners(run, "QI")))
    assert "blend: no combiner of this kind can be read" in notes(section.blocks)
    assert any(getattr(block, "caption", "").startswith("stack") for block in section.blocks)


def test_a_run_without_parts_is_refused_with_the_next_command(finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    shutil.rmtree(copy / "parts")
    with pytest.raises(CompetitionError, match="nothing to report") as caught:
        report(RunFolder(copy))
    assert "relstack status" in str(caught.value)
    assert relstack("report", "--run", finished_run, "--rows", -1).exit_code == 3


def test_evaluations_of_networks_become_curves() -> None:
    evaluations = [{"step": step, "f1": 0.7, "auc": 0.6 + step / 100, "log_loss": 0.5} for step in (5, 10)]
    table = learning_table([("xlmr", 0, evaluations), ("xlmr", 1, evaluations), ("lexical", 0, ())])
    assert table[["learner", "fold", "step"]].values.tolist() == [["xlmr", k, s] for k in (0, 1) for s in (5, 10)]
    drawn = learning("x", {str(fold): each for fold, each in table.groupby("fold")}, y="auc", label="AUC")
    assert {"var(--line-0)", "var(--line-1)"} <= set(re.findall(r"var\(--line-\d\)", drawn.svg))
    assert drawn.left < drawn.right


def test_names_in_charts_are_text_not_formulas_or_markup() -> None:
    frame = pd.DataFrame({"step": [1, 2], "auc": [0.5, 0.6]})
    svg = learning("a", {"0": frame}, y="auc", label="$x^2$ <script>").svg
    assert "$x^2$ &lt;script&gt;" in svg
    assert svg != learning("b", {"0": frame}, y="auc", label="$x^2$ <script>").svg, "ids differ between charts"


def test_a_constant_learner_correlates_with_nothing() -> None:
    table = correlations(np.array([[0.5, 0.1], [0.5, 0.9]]), ["flat", "steep"])
    assert np.isnan(table.loc[0, "steep"])
    assert say(table.loc[0, "steep"]) == "–"


def test_learners_side_by_side_agree_with_themselves(view: TaskView) -> None:
    ranks, apart = agreement_section(view).blocks
    assert all(row[place + 1].text == "1.0000" for place, row in enumerate(ranks.rows))
    assert all(row[place + 1].text == "0.0 %" for place, row in enumerate(apart.rows))


def test_errors_come_first_by_how_wrong_then_disputes_then_a_sample() -> None:
    pool = made_up_pool(3000)
    wrong = (pool.rows["label"] != pool.rows["decision"]).to_numpy()
    choice = choose_rows(pool, 1000, seed=0)
    errors, disputed, drawn = choice.kinds
    assert sum(kind.there for kind in choice.kinds) == len(pool.rows), "the counts add up"
    assert (errors.shown, errors.there) == (min(600, int(wrong.sum())), int(wrong.sum()))
    assert sum(kind.shown for kind in choice.kinds) == len(set(choice.positions)) == 1000
    first = choice.positions[: errors.shown]
    assert wrong[first].all()
    wrongness = np.abs(pool.scores[first, pool.chosen] - pool.rows["label"].to_numpy()[first])
    assert (np.diff(wrongness) <= 0).all()
    spread = np.abs(pool.scores[:, 0] - pool.scores[:, 1])
    middle = choice.positions[errors.shown : errors.shown + disputed.shown]
    assert spread[middle].min() >= np.delete(spread, [*middle, *np.flatnonzero(wrong)]).max()
    assert not wrong[choice.positions[-drawn.shown :]].any()


@pytest.mark.parametrize("n_rows", [0, 1, 7, 3000])
def test_any_number_of_rows_can_be_asked_for(n_rows: int) -> None:
    choice = choose_rows(made_up_pool(3000), n_rows, seed=0)
    assert len(choice.positions) == len(set(choice.positions.tolist())) == n_rows


def test_packed_rows_are_the_rows() -> None:
    pool = made_up_pool(500)
    choice = choose_rows(pool, 100, seed=0)
    (found,) = unpacked(packed([(pool, choice)]))
    rows = pool.rows.iloc[choice.positions]
    assert found["id"] == rows["id"].astype(str).tolist()
    for name in ("query", "query_en", "target", "language", "fold"):
        assert [found[name]["names"][code] for code in found[name]["codes"]] == rows[name].tolist()
    assert np.abs(np.array(found["scores"]).T / 1000 - pool.scores[choice.positions]).max() <= 0.0005


def test_300000_rows_make_a_small_file_that_says_how_many_it_shows() -> None:
    pool = made_up_pool(MANY)
    html = render(page_of(pool, n_rows=SHOWN))
    assert len(html.encode()) < SMALL
    found = Tables(html)
    assert len(found.rows()[0]["id"]) == SHOWN
    lines = {line[1]: line[2:] for line in found.tables["Which rows are in this file"][1:]}
    assert lines["all"] == [f"{SHOWN:,}", f"{MANY:,}"]
    counts = [[int(word.replace(",", "")) for word in words] for kind, words in lines.items() if kind != "all"]
    assert np.sum(counts, axis=0).tolist() == [SHOWN, MANY]
    n_errors = int((pool.rows["label"] != pool.rows["decision"]).sum())
    assert lines["errors, the worst first"] == ["12,000", f"{n_errors:,}"]


def test_hostile_texts_stay_texts() -> None:
    html = render(page_of(made_up_pool(50), n_rows=50))
    assert html.count("<script") == 2, "the rows and the page's own"
    assert "<img" not in html
    found = Tables(html)
    assert found.tables[HOSTILE[0]] == [list(HOSTILE), list(HOSTILE)]
    assert set(HOSTILE) <= set(found.rows()[0]["query"]["names"])


def test_the_page_asks_no_network_for_anything(finished_run: Path) -> None:
    html = (finished_run / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    for word in ("src=", 'href="http', "@import", "url(http", "fetch(", "XMLHttpRequest"):
        assert word not in html, word
