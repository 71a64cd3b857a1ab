"""The jobs of a run: each once, after what it needs, with the command that does it."""

from pathlib import Path
from typing import Any

import click
import pytest

from competition.sample import write_sample
from pipelines.cli import main
from pipelines.jobs import Job, Resources, job_graph
from pipelines.prepare import prepare, split
from pipelines.run_folder import RunFolder, RunSettings

TINY = ("lexical", "e5-tree", "e5-ce-tapt", "gemma-3-12b")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("jobs")
    write_sample(root / "data", n_train=200, n_dev=30, n_test=30)
    folder = RunFolder(root / "run")
    prepare(folder, RunSettings(data=str(root / "data"), tasks=("QC", "QI"), folds=3))
    split(folder)
    folder.add_recipes(TINY, ["gemma-3-12b:training.gpus=4"])
    return folder


@pytest.fixture(scope="module")
def graph(run: RunFolder) -> dict[str, Job]:
    jobs = job_graph(run, ["QC", "QI"], TINY, cpus=2)
    assert len({job.name for job in jobs}) == len(jobs)
    return {job.name: job for job in jobs}


def test_every_part_has_a_job_and_comes_after_what_it_needs(graph: dict[str, Job]) -> None:
    names = list(graph)
    assert sum(job.kind == "train" for job in graph.values()) == 3 * (4 + 3)  # a category tree serves QC alone
    for place, name in enumerate(names):
        assert set(graph[name].needs) <= set(names[:place])
    assert set(graph["ensemble.QI.blend"].needs) == {name for name in names if name.startswith("train.QI.")}


def test_argv_is_a_call_that_the_command_line_knows(graph: dict[str, Job]) -> None:
    for job in graph.values():
        command: Any = main
        words = list(job.argv)
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context(command.name, words)  # refuses options that it does not know
    assert graph["train.QC.lexical.fold-2"].argv[-4:] == ("--model", "lexical", "--fold", "2")
    assert graph["train.QC.lexical.fold-2"].command.startswith("relstack train --run ")


def test_pretrained_weights_are_made_before_the_folds_that_begin_with_them(
    run: RunFolder, graph: dict[str, Job]
) -> None:
    job = graph["pretrain.QC.e5-ce-tapt"]
    assert graph["train.QC.e5-ce-tapt.fold-0"].needs == (job.name,)
    assert job.argv[-4:] == ("--model", "e5-ce", "--name", "e5-ce-tapt")
    assert job.manifest == Path(run.pretrained("QC", "e5-ce-tapt")) / "all" / "manifest.json"


def test_weights_that_were_made_fold_by_fold_are_nobodys_job(run: RunFolder, graph: dict[str, Job]) -> None:
    made = run.pretrained("QC", "e5-ce-tapt") / "fold-0" / "manifest.json"
    made.parent.mkdir(parents=True)
    made.write_text("{}")
    jobs = {job.name: job for job in job_graph(run, ["QC"], TINY)}
    made.unlink()
    assert "pretrain.QC.e5-ce-tapt" not in jobs
    assert jobs["train.QC.e5-ce-tapt.fold-0"].needs == ()


def test_transformers_take_the_gpus_of_their_recipe(graph: dict[str, Job]) -> None:
    assert graph["train.QI.gemma-3-12b.fold-0"].resources == Resources(cpus=2, gpus=4)
    assert graph["train.QI.e5-ce-tapt.fold-0"].resources == Resources(cpus=2, gpus=1)
    assert graph["train.QI.lexical.fold-0"].resources == Resources(cpus=2, gpus=0)
