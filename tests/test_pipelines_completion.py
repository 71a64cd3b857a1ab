import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete
from click.testing import CliRunner

from oof.store import PartKey
from pipelines import completion
from pipelines.cli import main
from pipelines.cli_completion import INSTALL, NAME, VARIABLE
from pipelines.config import recipe_names
from pipelines.ensembling import COMBINERS
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.trackers import TRACKERS
from pipelines.translation.recipe import translation_recipe_names

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run folder with names in it, made by the functions that every stage writes with."""
    run = RunFolder(tmp_path_factory.mktemp("completion") / "run")
    run.write_settings(RunSettings(data="data", tasks=("QC", "QI"), folds=4))
    for folder in [
        run.rows_file("QC", "train").parent,
        run.rows_file("QI", "train").parent,
        run.parts.folder(PartKey("QC", "my-own", 0)),
        run.parts.folder(PartKey("QI", "lexical", 0)),
        run.parts.folder(PartKey("QI", "two words; rm", 0)),
        run.ensemble("QC", "greedy"),
        run.submission("final"),
        run.submission("second"),
        run.student("QC", "small"),
        run.pretrained("QC", "mine-tapt"),
    ]:
        folder.mkdir(parents=True)
    return run


def completed(*args: str, incomplete: str = "") -> list[str]:
    shell = ShellComplete(main, {}, NAME, VARIABLE)
    return [item.value for item in shell.get_completions(list(args), incomplete)]


def test_base_learners_are_recipes_and_those_of_the_run(run: RunFolder) -> None:
    assert set(completed("train", "--model")) == set(recipe_names())
    assert completed("train", "--run", str(run.root), "--model", incomplete="my") == ["my-own"]
    assert completed("predict", "--run", str(run.root), "--model") == ["lexical", "my-own"]
    assert completed("predict", "--run", str(run.root), "--task", "QC", "--model") == ["my-own"]
    assert completed("score", "--run", str(run.root), "--student") == ["small"]


def test_folds_are_those_of_the_run(run: RunFolder) -> None:
    assert completed("train", "--run", str(run.root), "--fold") == ["0", "1", "2", "3"]
    assert completed("train", "--fold") == ["0", "1", "2", "3", "4"]
    assert completed("tune", "--run", str(run.root), "--folds", incomplete="0,") == ["0,1", "0,2", "0,3"]


def test_names_of_a_run_are_offered_where_they_fit(run: RunFolder) -> None:
    of_run = ("--run", str(run.root))
    assert completed("stack", *of_run, "--task") == ["QC", "QI"]
    assert completed("submit", *of_run, "--ensemble") == ["best", "greedy", "lexical", "my-own"]
    assert completed("submit", *of_run, "--name") == ["final", "second"]
    assert completed("ensemble", "explain", *of_run, "--name") == ["greedy"]
    assert completed("pretrain", *of_run, "--from") == ["mine-tapt"]
    assert completed("validate", *of_run) == [str(run.submission("final")), str(run.submission("second"))]


def test_students_of_a_run_are_listed(run: RunFolder) -> None:
    context = main.commands["distil"].make_context("distil", ["--run", str(run.root)], resilient_parsing=True)
    assert completion.students(context) == ["small"]


def test_a_list_is_completed_at_its_last_name() -> None:
    offered = completed("run", "--recipes", incomplete="lexical,e5-b")
    assert "lexical,e5-bi" in offered
    assert all(each.startswith("lexical,e5-b") for each in offered)
    assert completed("run", "--tracker", incomplete="mlflow,") == ["mlflow,trackio", "mlflow,wandb"]


def test_a_path_is_completed_where_no_name_fits() -> None:
    shell = ShellComplete(main, {}, NAME, VARIABLE)
    assert [item.type for item in shell.get_completions(["train", "--model"], "./mine")] == ["file"]


def test_names_that_a_shell_could_take_for_more_are_not_offered(run: RunFolder) -> None:
    assert not [name for name in completed("predict", "--run", str(run.root), "--model") if " " in name]


@pytest.mark.parametrize("place", ["missing", "file"])
def test_a_folder_that_is_no_run_offers_what_needs_none(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert completed("train", "--run", str(tmp_path / place), "--fold") == ["0", "1", "2", "3", "4"]
    assert completed("predict", "--run", str(tmp_path / place), "--model") == []


def test_words_written_down_for_speed_are_the_real_ones() -> None:
    assert tuple(COMBINERS) == completion.COMBINERS
    assert completion.TRACKERS == TRACKERS
    context = main.commands["train"].make_context("train", [], resilient_parsing=True)
    assert completion.recipes(context) == sorted(recipe_names())
    assert completion.translation_recipes(context) == sorted(translation_recipe_names())


def test_completing_imports_nothing_heavy(run: RunFolder) -> None:
    typed = ["run", "--run", str(run.root), "--recipes"]
    script = (
        "import sys; from click.shell_completion import ShellComplete; from pipelines.cli import main;"
        f"ShellComplete(main, {{}}, 'relstack', 'X').get_completions({typed!r}, '');"
        "print(sorted({'numpy', 'pandas', 'pydantic', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("shell", list(INSTALL))
def test_the_script_ends_with_how_to_install_it(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"{VARIABLE}={shell}_complete" in result.stdout
    assert result.stdout.splitlines()[-1] == f"# install: {INSTALL[shell]}"


def test_the_script_for_fish_keeps_values_with_commas() -> None:
    assert 'string split --max 1 ","' in CliRunner().invoke(main, ["completion", "fish"]).stdout


@pytest.mark.parametrize("shell", [ZshComplete, FishComplete, BashComplete])
def test_every_shell_is_told_the_names(
    shell: type[ShellComplete], run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"relstack predict --run {run.root} --model "
    monkeypatch.setenv("COMP_WORDS", words if shell is not BashComplete else words.replace(" ", "\n"))
    monkeypatch.setenv("COMP_CWORD", "" if shell is FishComplete else "5")
    assert "my-own" in shell(main, {}, NAME, VARIABLE).complete()


def test_a_real_bash_completes(run: RunFolder, tmp_path: Path) -> None:
    command = tmp_path / "relstack"
    command.write_text(f"#!{sys.executable}\nfrom pipelines.cli import main\nmain()\n")
    command.chmod(0o755)
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout
    typed = f"""
COMP_WORDS=(relstack train --run {run.root} --task QC --model my)
COMP_CWORD=7
_relstack_completion relstack
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    bash = ["bash", "--norc", "-c", script + typed]
    done = subprocess.run(bash, capture_output=True, text=True, env=env, check=True)
    assert done.stdout.split() == ["my-own"], done.stderr
