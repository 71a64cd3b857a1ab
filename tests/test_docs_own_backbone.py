"""The backbone of docs/own-backbone.md works as it stands there, once its two lines are in."""

import re
import shutil
import sys
import types
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pydantic import Field, TypeAdapter

from competition.tasks import QI
from pipelines import backbones, config
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.cli import main
from pipelines.run_folder import RunFolder

PAGE = (Path(__file__).parent.parent / "docs" / "own-backbone.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page's module, made known by the two lines that the page names."""
    written = types.ModuleType("word_share")
    monkeypatch.setitem(sys.modules, "word_share", written)
    exec(compile(block("python"), "own-backbone.md", "exec"), written.__dict__)
    monkeypatch.setitem(backbones.KINDS, "word_share", written.WordShare)
    union: Any = Annotated[config.Recipe | written.WordShareRecipe, Field(discriminator="kind")]
    monkeypatch.setattr(config, "_ADAPTER", TypeAdapter(union))
    return written


@pytest.fixture
def fitted(module: Any, rows: pd.DataFrame, tmp_path: Path) -> Any:
    space = Workspace(tmp_path, tmp_path, Corpus.of([rows]), seed=0, threads=1)
    return module.WordShare(module.WordShareRecipe(kind="word_share"), space).fit(rows, QI)


@pytest.fixture
def rows(finished_run: Path) -> pd.DataFrame:
    return RunFolder(finished_run).rows("QI")["train"]


def test_it_is_trained_scored_and_ranked_as_any_other(module: Any, finished_run: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", tmp_path / "word-share.toml"
    shutil.copytree(finished_run, run)
    recipe.write_text(block("toml"), encoding="utf-8")
    data = Path(RunFolder(run).settings().data)
    for words in (
        ["train", "--run", run, "--task", "QI", "--model", recipe],
        ["leaderboard", "--run", run],
        ["predict", data / "dev_QI.txt", "--run", run, "--task", "QI", "--model", "word-share"],
    ):
        result = CliRunner().invoke(main, list(map(str, words)))
        assert result.exit_code == 0, result.output
        if words[0] == "leaderboard":
            assert "word-share" in result.stdout


def test_it_survives_saving(module: Any, fitted: Any, rows: pd.DataFrame, tmp_path: Path) -> None:
    fitted.save(tmp_path / "weights")
    loaded = backbones.load(tmp_path / "weights", fitted.workspace)
    assert np.array_equal(loaded.predict(rows, QI), fitted.predict(rows, QI))


def test_a_row_scores_the_same_alone_and_among_others(fitted: Any, rows: pd.DataFrame) -> None:
    together = fitted.predict(rows, QI)
    alone = np.concatenate([fitted.predict(rows.iloc[[place]], QI) for place in range(20)])
    np.testing.assert_array_equal(alone, together[:20])
    assert len(np.unique(together)) > 1
    assert together.dtype == np.float32
    assert len(fitted.predict(rows.iloc[:0], QI)) == 0
