"""Studies: what a trial is given, what it is worth, and what several or killed workers leave behind."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

import pipelines.backbones
from competition.errors import CompetitionError, MismatchError
from competition.fold_store import save_folds
from competition.folds import Dealt
from competition.sample import write_sample
from competition.tasks import QI, Task
from oof.store import PartKey
from oof.threshold import best_threshold
from pipelines.backbones.lexical import Lexical
from pipelines.cli import Commands
from pipelines.cli_tune import tune as tune_command
from pipelines.config import load_recipe, recipe_values
from pipelines.prepare import prepare, split
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.search_space import overrides_of
from pipelines.study_plan import Tuning, log_loss, plan_study
from pipelines.study_store import WORKER
from pipelines.study_trials import work
from pipelines.train import train
from pipelines.tune import tune

ROOT = Path(__file__).parent.parent
VARY = ("head.rounds=2..12", "head.learning_rate=log:0.01..0.5", "text.view=original,english,both")

TUNE_WITH = f"""
import os, signal, sys, time
from pathlib import Path
import pipelines.backbones
from pipelines.backbones.lexical import Lexical
from pipelines.run_folder import RunFolder
from pipelines.study_plan import Tuning
from pipelines.tune import tune

class Changed(Lexical):
    def fit(self, train, task):
        {{body}}
        return super().fit(train, task)

pipelines.backbones.KINDS["lexical"] = Changed
tune(Tuning(RunFolder(Path(sys.argv[1])), "QI", "lexical", {VARY!r}, trials={{trials}}))
"""


def make_run(folder: Path, *, seed: int = 0) -> RunFolder:
    write_sample(folder / "data", n_train=240, n_dev=30, n_test=30, tasks=("QI",))
    run = RunFolder(folder / "run")
    prepare(run, RunSettings(data=str(folder / "data"), tasks=("QI",), folds=3, seed=seed, recipes=("lexical",)))
    split(run)
    run.add_recipes(["lexical"], ["lexical:head.rounds=5"])
    return run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path)


def tuning_of(run: RunFolder, **values: Any) -> Tuning:
    return Tuning(**{"run": run, "task": "QI", "model": "lexical", "vary": VARY, "trials": 4, **values})


def trials_of(tuning: Tuning) -> list[optuna.trial.FrozenTrial]:
    return list(plan_study(tuning).open().get_trials())


def values_of(tuning: Tuning) -> list[tuple[dict[str, Any], float | None]]:
    return [(trial.params, trial.value) for trial in trials_of(tuning)]


class Watched(Lexical):
    """The lexical base learner, which writes down what it is given."""

    given: list[tuple[str, pd.DataFrame]] = []  # noqa: RUF012

    def fit(self, train: pd.DataFrame, task: Task) -> "Watched":
        self.given.append(("fit", train))
        return super().fit(train, task)

    def predict(self, rows: pd.DataFrame, task: Task) -> np.ndarray:
        self.given.append(("predict", rows))
        return super().predict(rows, task)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, pd.DataFrame]]:
    """What the lexical base learner is given from now on."""
    monkeypatch.setitem(pipelines.backbones.KINDS, "lexical", Watched)
    monkeypatch.setattr(Watched, "given", [])
    return Watched.given


class Greedy(Lexical):
    """A base learner for which memory never lasts beyond six rounds."""

    def fit(self, train: pd.DataFrame, task: Task) -> "Greedy":
        if self.recipe.head.rounds > 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has 8 GiB.")
        return super().fit(train, task)


class Hopeless(Lexical):
    """A base learner that cannot be fitted."""

    def fit(self, train: pd.DataFrame, task: Task) -> "Hopeless":
        raise CompetitionError("no weights are called 'nothing'")


def test_held_out_rows_never_reach_fit_and_labels_never_predict(
    run: RunFolder, given: list[tuple[str, pd.DataFrame]]
) -> None:
    tune(tuning_of(run, folds=(1,)))
    rows = run.rows("QI")["train"]
    held_out = set(rows["id"][(run.folds("QI").align(rows) == 1).to_numpy()])
    fitted = [frame for what, frame in given if what == "fit"]
    scored = [frame for what, frame in given if what == "predict"]
    assert len(fitted) == len(scored) == 4
    assert all(set(frame["id"]) == set(rows["id"]) - held_out for frame in fitted)
    assert all(set(frame["id"]) == held_out for frame in scored)
    assert not any("label" in frame for frame in scored)


def test_what_a_fold_withholds_reaches_no_trial(run: RunFolder, given: list[tuple[str, pd.DataFrame]]) -> None:
    rows, folds = run.rows("QI")["train"], run.folds("QI")
    withheld = np.zeros((len(folds.ids), folds.plan.n_splits), dtype=bool)
    withheld[::3] = folds.fold.to_numpy()[::3, None] != np.arange(folds.plan.n_splits)
    shutil.rmtree(run.folds_folder("QI"))
    dealt = Dealt(folds.fold.set_axis(rows.index), folds.group.set_axis(rows.index), withheld)
    values = {"rows": rows, "dealt": dealt, "plan": folds.plan, "task": QI}
    save_folds(run.folds_folder("QI"), folds.plan.kind, rows_digest=folds.rows_digest, **values)
    tune(tuning_of(run, folds=(1,), trials=1))
    fitted = [frame for what, frame in given if what == "fit"]
    expected = rows["id"][((folds.fold != 1) & ~withheld[:, 1]).to_numpy()]
    assert set(fitted[0]["id"]) == set(expected)
    assert len(expected) < (folds.fold != 1).sum()


def test_every_trial_gets_the_same_rows_and_no_more_than_asked_for(
    run: RunFolder, given: list[tuple[str, pd.DataFrame]]
) -> None:
    tune(tuning_of(run, rows=60, trials=3))
    for what in ("fit", "predict"):
        frames = [frame for got, frame in given if got == what]
        assert 40 < len(frames[0]) <= 60
        assert all(frame.equals(frames[0]) for frame in frames)


def test_the_first_trial_is_the_recipe_and_is_worth_what_fold_training_says(run: RunFolder) -> None:
    tuning = tuning_of(run, folds=(0, 2))
    tuned = tune(tuning)
    plan, first = plan_study(tuning), trials_of(tuning)[0]
    assert plan.recipe_of(first.params) == run.recipe("lexical")
    rows = run.rows("QI")["train"].set_index("id")
    f1 = []
    for fold in tuning.folds:
        scores = pd.read_parquet(train(run, PartKey("QI", "lexical", fold)) / "oof.parquet")
        f1.append(best_threshold(rows["label"].loc[scores["id"]].to_numpy(dtype=int), scores["score"]).f1)
    assert first.value == pytest.approx(np.mean(f1))
    assert tuned.base_value == first.value


def test_the_tuned_recipe_is_that_of_the_best_trial_and_no_worse_than_the_recipe(run: RunFolder) -> None:
    tuning = tuning_of(run, trials=6)
    tuned = tune(tuning, out=run.root.parent / "mine" / "better.toml")
    trials = trials_of(tuning)
    best = max(trials, key=lambda trial: (trial.value, -trial.number))
    assert tuned.value == best.value
    assert tuned.value >= trials[0].value
    expected = load_recipe("lexical", ["head.rounds=5", *overrides_of(best.params)])
    for path in (tuned.path, tuning.store.root / "lexical-tuned.toml"):
        assert recipe_values(load_recipe(str(path))) == recipe_values(expected)
        assert f"study lexical, QI, trial {best.number} of 6" in load_recipe(str(path)).description
    assert tuned.path.name == "better.toml"
    assert tuned.trials["value"].tolist() == sorted((trial.value for trial in trials), reverse=True)


def test_less_is_better_where_the_metric_is_a_loss(run: RunFolder) -> None:
    tuning = tuning_of(run, metric="log-loss")
    tuned = tune(tuning)
    values = [trial.value for trial in trials_of(tuning)]
    assert len(set(values)) > 1
    assert tuned.value == min(values)
    assert tuned.trials["value"].tolist() == sorted(values)


def test_log_loss_of_a_sure_mistake_is_large_and_finite() -> None:
    assert log_loss([1, 0], [0.8, 0.4]) == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)
    assert 10 < log_loss([1], [0.0]) < 20


def test_the_same_seed_draws_the_same_trials_and_another_seed_others(run: RunFolder, tmp_path: Path) -> None:
    one, other = tuning_of(run, study="one", trials=8), tuning_of(run, study="other", trials=8)
    tune(one)
    tune(other)
    assert values_of(one) == values_of(other)
    (tmp_path / "seeded").mkdir()
    elsewhere = tuning_of(make_run(tmp_path / "seeded", seed=1))
    tune(elsewhere)
    assert [params for params, _ in values_of(elsewhere)[1:]] != [params for params, _ in values_of(one)[1:4]]


def test_a_study_that_goes_on_is_the_study_that_was_never_stopped(
    run: RunFolder, given: list[tuple[str, pd.DataFrame]]
) -> None:
    whole, halves = tuning_of(run, study="whole", trials=7), tuning_of(run, study="halves", trials=3)
    tune(whole)
    tune(halves)
    given.clear()
    tune(replace(halves, trials=7))
    assert len(given) == 2 * 4
    assert values_of(halves) == values_of(whole)
    given.clear()
    tune(replace(halves, trials=7))
    assert given == []


def test_values_drawn_before_are_not_fitted_again(run: RunFolder, given: list[tuple[str, pd.DataFrame]]) -> None:
    tuning = tuning_of(run, vary=("text.view=original,both",), trials=5)
    table = tune(tuning).trials
    assert len(given) == 2 * 2
    assert sorted(table["text.view"]) == ["both", "original"]
    assert table["state"].tolist() == ["complete"] * 2


def test_a_small_space_is_tried_out_completely(run: RunFolder) -> None:
    table = tune(tuning_of(run, vary=("head.rounds=4..6", "text.view=original,english,both"), trials=9)).trials
    assert len(table) == 9
    assert len(table[["head.rounds", "text.view"]].drop_duplicates()) == 9


def test_a_trial_below_the_median_after_a_fold_is_pruned(run: RunFolder) -> None:
    tuning = tuning_of(run, folds=(0, 1, 2), trials=14)
    table = tune(tuning).trials
    trials = trials_of(tuning)
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert pruned
    for trial in pruned:
        step = trial.last_step
        before = [t for t in trials[: trial.number] if t.state.name == "COMPLETE"]
        assert step < 2
        assert len(before) >= 5
        assert trial.value < np.median([t.intermediate_values[step] for t in before])
    assert trials[0].state.name == "COMPLETE"
    assert table["state"].tolist() == ["complete"] * (14 - len(pruned)) + ["pruned"] * len(pruned)
    assert table["note"].str.contains(r"after [12] of 3 folds").sum() == len(pruned)


def test_values_that_do_not_go_together_fail_with_their_reason(
    run: RunFolder, given: list[tuple[str, pd.DataFrame]]
) -> None:
    table = tune(tuning_of(run, vary=("ngrams.shortest=2,5", "ngrams.longest=3,4"), trials=4)).trials
    assert table["state"].tolist() == ["complete"] * 2 + ["failed"] * 2
    failed = table[table["state"] == "failed"]
    assert failed["ngrams.shortest"].tolist() == ["5", "5"]
    assert failed["note"].str.contains(r"shortest \(5\) must not exceed longest").all()
    assert len(given) == 2 * 2


def test_a_trial_without_memory_fails_and_the_study_goes_on_elsewhere(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pipelines.backbones.KINDS, "lexical", Greedy)
    tuning = tuning_of(run, vary=("head.rounds=5,6,40,50", "head.learning_rate=log:0.01..0.5"), trials=20)
    tuned = tune(tuning)
    fitted = tuned.trials["head.rounds"].isin(["5", "6"])
    assert len(fitted) == 20
    assert tuned.trials["state"].tolist() == ["complete"] * fitted.sum() + ["failed"] * (~fitted).sum()
    assert tuned.trials["note"][~fitted].str.contains("Tried to allocate 20.00 GiB").all()
    assert tuned.value == tuned.trials["value"].max()
    assert fitted.sum() > 10, "half of the space fits into memory: the sampler has understood which"
    assert not list((tuning.store.root / "scratch").iterdir())


def test_a_recipe_that_cannot_be_fitted_ends_the_study(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(pipelines.backbones.KINDS, "lexical", Hopeless)
        with pytest.raises(CompetitionError, match="no weights"):
            tune(tuning_of(run))
    tuned = tune(tuning_of(run))
    assert tuned.base_value is not None
    assert tuned.trials["state"].tolist() == ["complete"] * 4 + ["stopped"]
    assert tuned.trials["note"].tolist().count("the recipe as it stands") == 2


def test_two_workers_share_one_journal_and_never_exceed_the_trials(run: RunFolder) -> None:
    tuning = tuning_of(run, trials=9)
    tuned = tune(tuning, workers=2)
    trials = trials_of(tuning)
    assert [trial.number for trial in trials] == list(range(9))
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    assert plan_study(tuning).recipe_of(trials[0].params) == run.recipe("lexical")
    assert len(tuned.trials) == 9


def test_the_same_command_twice_at_once_shares_the_trials(run: RunFolder) -> None:
    code = TUNE_WITH.format(
        body="for _ in range(6000):\n"
        "            if len(list(Path(sys.argv[1]).glob('studies/QI/lexical/workers/*'))) == 2: break\n"
        "            time.sleep(0.01)\n"
        "        else: raise SystemExit('no second worker came')",
        trials=6,
    )
    tuning = tuning_of(run, trials=6)
    started = [subprocess.Popen([sys.executable, "-c", code, str(run.root)], cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    trials = trials_of(tuning)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    assert len({trial.user_attrs[WORKER] for trial in trials}) == 2
    assert len({json.dumps(trial.params) for trial in trials}) == 6
    assert (tuning.store.root / "lexical-tuned.toml").is_file()


def test_trials_under_way_count_and_two_workers_draw_different_values(run: RunFolder) -> None:
    tuning = tuning_of(run, trials=3)
    plan, store = plan_study(tuning), tuning.store
    first, second = plan.open(), plan.open()

    def ask(study: optuna.Study, worker: str) -> optuna.Trial | None:
        return store.next_trial(
            study, plan.space.distributions(), first=plan.own_values, n_trials=3, worker=worker, seed=plan.seed
        )

    with store.worker() as a, store.worker() as b:
        drawn = [ask(first, a), ask(second, b), ask(second, b)]
        assert [trial.number for trial in drawn if trial] == [0, 1, 2]
        assert len({json.dumps(trial.params) for trial in drawn if trial}) == 3
        assert ask(first, a) is None
        assert ask(second, b) is None
    assert ask(first, a) is not None, "both workers are gone, their trials do not count any more"


def test_the_trial_of_a_killed_worker_is_failed_and_does_not_count(run: RunFolder) -> None:
    code = TUNE_WITH.format(
        body="if self.recipe.head.rounds != 5:\n"
        "            (self.workspace.scratch / 'checkpoint').write_text('half')\n"
        "            os.kill(os.getpid(), signal.SIGKILL)",
        trials=4,
    )
    done = subprocess.run([sys.executable, "-c", code, str(run.root)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == -9, done.stderr
    tuning = tuning_of(run)
    assert [trial.state.name for trial in trials_of(tuning)] == ["COMPLETE", "RUNNING"]
    assert list((tuning.store.root / "scratch").rglob("checkpoint"))
    tuned = tune(tuning)
    assert [trial.state.name for trial in trials_of(tuning)] == ["COMPLETE", "FAIL", *["COMPLETE"] * 3]
    assert tuned.trials["state"].tolist() == ["complete"] * 4 + ["stopped"]
    assert not list((tuning.store.root / "scratch").iterdir())
    assert not list((tuning.store.root / "workers").iterdir())


def test_a_worker_that_lives_keeps_its_trial(run: RunFolder) -> None:
    tuning = tuning_of(run)
    plan, store = plan_study(tuning), tuning.store
    study = plan.open()
    with store.worker() as name:
        trial = study.ask(plan.space.distributions())
        trial.set_user_attr(WORKER, name)
        work(plan)
        states = [trial.state.name for trial in trials_of(tuning)]
    assert states == ["RUNNING", *["COMPLETE"] * 3]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vary": ("head.rounds=2..13",)}, "space.head.rounds"),
        ({"folds": (0, 1)}, "held_out_folds"),
        ({"rows": 100}, "n_rows"),
        ({"metric": "auc"}, "metric"),
        ({"overrides": ("head.leaves=7",)}, "recipe.head.leaves"),
    ],
)
def test_a_study_that_was_made_otherwise_is_refused(run: RunFolder, change: dict[str, Any], named: str) -> None:
    tune(tuning_of(run, vary=("head.rounds=2..12",), trials=2))
    before = values_of(tuning_of(run, vary=("head.rounds=2..12",)))
    with pytest.raises(MismatchError, match="study lexical was made with other settings") as caught:
        tune(tuning_of(run, **{"vary": ("head.rounds=2..12",), **change}))
    assert named in [fault.where for fault in caught.value.faults]
    assert values_of(tuning_of(run, vary=("head.rounds=2..12",))) == before


def test_a_study_of_other_rows_is_refused(run: RunFolder) -> None:
    tune(tuning_of(run, trials=2))
    file = run.rows_file("QI", "train")
    rows = pd.read_parquet(file)
    rows.loc[0, "label"] = 1 - rows.loc[0, "label"]
    rows.to_parquet(file.with_name("other"), index=False)
    file.with_name("other").rename(file)
    with pytest.raises(MismatchError) as caught:
        tune(tuning_of(run, trials=2))
    assert [fault.where for fault in caught.value.faults] == ["rows.train"]


def test_a_request_that_cannot_be_names_all_faults_and_writes_nothing(run: RunFolder) -> None:
    with pytest.raises(CompetitionError) as caught:
        tune(tuning_of(run, folds=(0, 3), rows=1, trials=0, metric="f2", study="../elsewhere"))
    assert [fault.where for fault in caught.value.faults] == ["--folds", "--rows", "--trials", "--metric", "--study"]
    with pytest.raises(CompetitionError, match="cannot be written there"):
        tune(tuning_of(run), out=run.root / "tuned.txt")
    with pytest.raises(CompetitionError, match="category path"):
        tune(tuning_of(run, model="e5-tree", vary=("head.rounds=5..9",)))
    with pytest.raises(CompetitionError, match="space cannot be searched"):
        tune(tuning_of(run, vary=("head.roundz=5..9",)))
    assert not (run.root / "studies").exists()


def test_a_damaged_journal_is_named(run: RunFolder) -> None:
    tuning = tuning_of(run, trials=2)
    tune(tuning)
    lines = tuning.store.journal.read_text().splitlines(keepends=True)
    tuning.store.journal.write_text("".join([*lines[:3], "{half a li\n", *lines[3:]]))
    with pytest.raises(CompetitionError, match="journal of study lexical is damaged"):
        tune(replace(tuning, trials=3))


def test_a_cross_encoder_is_tuned(run: RunFolder, bert: Path) -> None:
    model = run.root.parent / "tiny.toml"
    model.write_text(
        f'kind = "cross_encoder"\nmax_length = 48\n[weights]\nname = "{bert}"\n'
        "[training]\nepochs = 1\nlearning_rate = 1e-3\nbatch_size = 16\n[training.lora]\nr = 4\n"
    )
    vary = ("training.learning_rate=log:1e-4..1e-2", "training.lora.r=2,4", "text.view=original,both")
    tuning = tuning_of(run, model=str(model), vary=vary, rows=60, trials=3, metric="auc")
    tuned = tune(tuning)
    assert tuned.path == run.root / "studies" / "QI" / "tiny" / "tiny-tuned.toml"
    assert plan_study(tuning).recipe_of(trials_of(tuning)[0].params) == load_recipe(str(model))
    assert tuned.trials["state"].tolist() == ["complete"] * 3
    assert tuned.base_value is not None
    assert tuned.value >= tuned.base_value
    assert load_recipe(str(tuned.path)).weights.name == str(bert)
    assert not list((tuning.store.root / "scratch").iterdir())


def cli(*words: object) -> Result:
    group = Commands("relstack", commands={"tune": tune_command})
    return CliRunner().invoke(group, ["tune", *map(str, words)])


def test_the_command_prints_trials_and_the_recipe_trains(run: RunFolder) -> None:
    vary = [word for text in VARY for word in ("--vary", text)]
    words = ["--run", run.root, "--task", "QI", "--model", "lexical", *vary, "--trials", 3]
    done = cli(*words, "--format", "json")
    assert done.exit_code == 0, done.output
    table = json.loads(done.stdout)
    assert [line["trial"] for line in sorted(table, key=lambda line: -line["value"])] == [t["trial"] for t in table]
    assert {"trial", "value", "state", "seconds", "head.rounds", "text.view", "note"} <= table[0].keys()
    assert "optimistic" in done.stderr
    assert "--fold 1" in done.stderr
    path = run.study("QI", "lexical") / "lexical-tuned.toml"
    assert f"--model {path}" in done.stderr
    run.add_recipes([str(path)], [])
    key = PartKey("QI", "lexical-tuned", 1)
    train(run, key)
    assert run.parts.manifest(key).origin.recipe["head"]["rounds"] == load_recipe(str(path)).head.rounds
    refused = cli(*words, "--rows", 50)
    assert refused.exit_code == 3
    assert "n_rows: 50; expected 4000, as the study was made" in refused.stderr
    assert cli(*words, "--folds", "0-1").exit_code == 2


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from pipelines.cli_tune import tune\n"
        "assert CliRunner().invoke(tune, ['--help']).exit_code == 0\n"
        "print([name for name in ('torch', 'optuna', 'pandas', 'pydantic', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_study_rows_come_from_the_run(run: RunFolder) -> None:
    plan = plan_study(tuning_of(run, folds=(2,)))
    assert plan.task == QI
    assert set(plan.corpus.targets) >= set(plan.parts[0].train["target"])
