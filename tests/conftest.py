"""Folders with tiny real models, made once per session; logging that no test leaves behind for the next."""

import logging
from pathlib import Path

import hypothesis
import pytest
from click.testing import CliRunner
from tiny import save_tiny, save_tiny_translator

hypothesis.settings.register_profile("unhurried", deadline=None)  # a busy machine is not a fault
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def logging_as_new() -> None:
    """Undo what commands (``--quiet``) and benchmarks that ran in this process did to the loggers."""
    logging.disable(logging.NOTSET)
    for package in ("competition", "oof", "submissions", "pipelines"):
        logging.getLogger(package).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BertModel."""
    return save_tiny(tmp_path_factory.mktemp("models") / "bert", "bert")


@pytest.fixture(scope="session")
def xlmr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny XLMRobertaModel."""
    return save_tiny(tmp_path_factory.mktemp("models") / "xlmr", "xlmr")


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma3ForCausalLM, without a padding token."""
    return save_tiny(tmp_path_factory.mktemp("models") / "gemma", "gemma")


@pytest.fixture(scope="session")
def gemma_multimodal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma3ForConditionalGeneration, as the larger Gemma-3 models are published."""
    return save_tiny(tmp_path_factory.mktemp("models") / "gemma-multimodal", "gemma-multimodal")


@pytest.fixture(scope="session")
def madlad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny T5 that is told the target language as MADLAD-400 is."""
    return save_tiny_translator(tmp_path_factory.mktemp("models") / "madlad", "madlad")


@pytest.fixture(scope="session")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny M2M100 that is told the languages as NLLB is."""
    return save_tiny_translator(tmp_path_factory.mktemp("models") / "nllb", "nllb")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of QI with two base learners, everything done; whoever changes it works on a copy."""
    from competition.sample import write_sample
    from pipelines.cli import main

    root = tmp_path_factory.mktemp("finished")
    write_sample(root / "data", n_train=400, n_dev=60, n_test=60, seed=3, tasks=("QI",))
    words = ["run", "--data", root / "data", "--run", root / "run", "--folds", 3, "--tasks", "QI",
             "--recipes", "lexical,lexical-linear", "--set", "lexical:head.rounds=20"]  # fmt: skip
    done = CliRunner().invoke(main, ["--quiet", *map(str, words)])
    assert done.exit_code == 0, done.output
    return root / "run"
