"""The Python interface: a competition from files to scores without the command line, and what notebooks show."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import relstack as rs
from competition.contest import CONTESTS, load_contest
from pipelines.api import Run

NAMES = {
    "QC", "QI", "CompetitionError", "Ensemble", "Fault", "FoldPlan", "Leaderboard", "Run", "Student", "Task",
    "check", "sample",
}  # fmt: skip


def test_its_names_are_there_and_documented() -> None:
    assert set(rs.__all__) == NAMES <= set(dir(rs))
    for name in rs.__all__:
        assert getattr(rs, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        rs.nothing_of_that_name  # noqa: B018


def test_a_typed_program_is_checked_by_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "mine.py").write_text(
        "import relstack as rs\nscores = rs.Ensemble.load(rs.Run.open('run'), 'QI').score('pairs.csv')\n"
        "reveal_type(scores)\nrs.Run.create('run', fold=3)\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), str(tmp_path / "mine.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)
    assert 'Revealed type is "pandas' in done.stdout, done.stdout + done.stderr
    assert 'Unexpected keyword argument "fold"' in done.stdout


def test_from_files_to_scores(tmp_path: Path) -> None:
    files = rs.sample(tmp_path / "data", train_rows=300, dev_rows=40, test_rows=40, tasks=["QI"])
    assert isinstance(files, pd.DataFrame)
    assert "<table" in rs.check(tmp_path / "data", tasks=["QI"])._repr_html_()
    run = rs.Run.create(tmp_path / "run", data=tmp_path / "data", tasks=["QI"], folds=3)
    tables = run.split()
    assert all(isinstance(table, pd.DataFrame) for table in tables.values())
    assert tables._repr_html_().count("<table") == len(tables) > 1
    parts = run.train("QI", "lexical", overrides=["lexical:head.rounds=15"])
    assert [part.name for part in parts] == ["fold-0", "fold-1", "fold-2"]
    assert run.train("QI", "lexical-linear", fold=1) + run.train("QI", "lexical-linear")[:1]
    assert run.ensemble("QI", "mean").name == "mean"
    assert run.distil("QI", "lexical-linear", name="small", ensemble="mean").name == "small"
    board = run.leaderboard()
    assert {entry.name for entry in board.entries} == {"lexical", "lexical-linear", "mean", "student/small"}
    assert board._repr_html_().count("<tr>") == 4
    assert set(run.status()["state"]) <= {"done", "waiting"}
    assert "<table" in run._repr_html_()
    files = run.submit("mean")
    assert files.zip.is_file()
    assert run.validate(files.folder).rows == {"QI": 40}
    assert set(run.compare(files.folder, files.zip)["task"]) == {"QI"}
    assert run.verify().faults == ()
    assert (run.card() / "README.md").is_file()
    assert run.report().is_file()

    again = Run.open(tmp_path / "run")
    pairs = [{"query": "red shoes", "target": "shoes", "language": "en"}]
    ensemble, student = rs.Ensemble.load(again), rs.Student.load(str(tmp_path / "run"), name="small")
    assert isinstance(ensemble, rs.Ensemble)
    assert ensemble.name == "mean"
    assert "lexical, lexical-linear" in ensemble._repr_html_()
    assert "student" in student._repr_html_()
    for value in (run, tables, board, files, run.verify(), ensemble, student):
        assert len(repr(value)) < 400
        assert "\n" not in repr(value)
    assert "QI/mean" in repr(ensemble)
    for scorer in (ensemble, student):
        found = scorer.score(pairs)
        assert found.columns.tolist() == ["id", "score", "decision"]
        assert found["score"].between(0, 1).all()


def test_other_contests_are_asked_for_or_described_in_the_data_folder(tmp_path: Path) -> None:
    files = rs.sample(tmp_path / "data", competition="wdc-products", train_rows=300, test_rows=60)
    assert all(Path(path).is_file() for path in files["path"])
    asked = rs.Run.create(tmp_path / "asked", data=tmp_path / "data", competition="wdc-products", depth=2)
    assert asked.folder.settings().depth == 2
    shutil.copy(CONTESTS / "wdc-products.toml", tmp_path / "data" / "competition.toml")
    found = rs.Run.create(tmp_path / "found", data=tmp_path / "data")
    tasks = load_contest("wdc-products").tasks
    assert asked.folder.contest().tasks == found.folder.contest().tasks == tasks
    assert asked.tasks() == found.tasks() == [task.name for task in tasks]
    for page in (rs.check(tmp_path / "data"), rs.check(tmp_path / "data", competition="wdc-products")):
        assert tasks[0].name in set(page.verdicts["task"])
    with pytest.raises(rs.CompetitionError, match="told by their translations"):
        rs.Run.create(tmp_path / "other", data=tmp_path / "data", relabel_unknown=True)


def test_what_a_user_can_cause_is_a_competition_error(tmp_path: Path, finished_run: Path) -> None:
    with pytest.raises(rs.CompetitionError, match="not a run folder"):
        rs.Run.open(tmp_path)
    with pytest.raises(rs.CompetitionError, match=r"folds: .*greater than or equal to 3"):
        rs.Run.create(tmp_path / "run", data=tmp_path, folds=2)
    with pytest.raises(rs.CompetitionError, match=r"no base learner or ensemble called 'none'[\s\S]*stack"):
        rs.Ensemble.load(finished_run, name="none")
    with pytest.raises(rs.CompetitionError, match=r"no student called 'none'[\s\S]*relstack distil"):
        rs.Student.load(finished_run, name="none")
