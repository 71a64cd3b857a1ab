"""Weights that bring code along run it only if the recipe asks for it and this machine's user agrees."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from competition.errors import CompetitionError
from pipelines.config import WeightsSection, load_recipe, recipe_values
from pipelines.trust import CONSENT, code_faults, may_run_code, named_code, refuse_links
from pipelines.weights import named_weights, resolve_weights

CODE = """
from pathlib import Path
from transformers import BertConfig, BertModel

Path({marker!r}).touch()


class OwnConfig(BertConfig):
    model_type = "own-bert"


class OwnModel(BertModel):
    config_class = OwnConfig
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is there as soon as a stranger's code has run."""
    return tmp_path / "ran"


@pytest.fixture
def foreign(bert: Path, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model of a class of its own, whose Python file touches `marker`."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "foreign"
    shutil.copytree(bert, folder)
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own-bert", "auto_map": own}))
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    return folder


def load(weights: Any) -> Any:
    from transformers import AutoModel

    from pipelines.weights import load_checked

    return load_checked(AutoModel, weights)


def test_code_is_refused_by_default(foreign: Path, marker: Path) -> None:
    with pytest.raises(CompetitionError, match=r"own\.OwnModel") as raised:
        load(resolve_weights(str(foreign)))
    assert "trust_remote_code = true" in raised.value.advice
    assert CONSENT in raised.value.advice
    assert not marker.exists()


def test_a_recipe_alone_cannot_allow_code(foreign: Path, marker: Path) -> None:
    with pytest.raises(CompetitionError, match="a recipe alone cannot allow") as raised:
        named_weights(WeightsSection(name=str(foreign), trust_remote_code=True))
    assert f"{CONSENT}={foreign}" in raised.value.advice
    assert not marker.exists()


def test_consent_alone_allows_no_code(foreign: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONSENT, str(foreign))
    with pytest.raises(CompetitionError):
        load(named_weights(WeightsSection(name=str(foreign))))
    assert not marker.exists()


@pytest.mark.parametrize("where", ["itself", "above"])
def test_code_runs_with_both_and_a_warning_names_it(
    where: str, foreign: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CONSENT, f"team/other, {foreign if where == 'itself' else foreign.parent}")
    weights = named_weights(WeightsSection(name=str(foreign), trust_remote_code=True))
    assert weights.trusted
    assert str(foreign) in caplog.text
    assert "all your rights" in caplog.text
    assert type(load(weights)).__name__ == "OwnModel"
    assert marker.exists()


def test_a_relative_folder_is_no_consent(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(foreign.parent)
    monkeypatch.setenv(CONSENT, "foreign")
    with pytest.raises(CompetitionError, match="a recipe alone cannot allow"):
        resolve_weights("foreign", trust_remote_code=True)


def test_a_folder_that_is_called_like_a_trusted_repository_is_not_trusted(
    foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONSENT, "team/own")
    assert may_run_code("team/own", foreign, from_hub=True, asked=True)
    with pytest.raises(CompetitionError):
        may_run_code("team/own", foreign, from_hub=False, asked=True)


def test_weights_without_code_need_no_consent(bert: Path) -> None:
    assert not named_weights(WeightsSection(name=str(bert), trust_remote_code=True)).trusted


def test_the_key_leaves_digests_of_older_recipes_alone() -> None:
    assert "trust_remote_code" not in recipe_values(load_recipe("e5-bi"))["weights"]
    asked = load_recipe("e5-bi", ["weights.trust_remote_code=true"])
    assert recipe_values(asked)["weights"]["trust_remote_code"] is True


def test_pickled_weights_are_refused(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(CompetitionError, match="pickles, which can run code"):
        resolve_weights(str(tmp_path / "pickled"))


def test_pickled_shards_are_refused(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "shards")
    (tmp_path / "shards" / "model.safetensors").rename(tmp_path / "shards" / "pytorch_model.bin")
    index = {"metadata": {}, "weight_map": {"embeddings.weight": "pytorch_model.bin"}}
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CompetitionError, match="listed as a shard"):
        resolve_weights(str(tmp_path / "shards"))


PLANTED = {
    "a module of one's own": ("modules.json", [{"idx": 0, "name": "0", "path": "", "type": "own.Module"}]),
    "a module that imports": (
        "modules.json",
        [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.WordEmbeddings"}],
    ),
    "a module of a module": ("modules.json", [{"path": "", "type": "sentence_transformers.os.Pooling.x"}]),
    "modules without a type": ("modules.json", {"type": "x"}),
    "unsafe pickles": ("sentence_bert_config.json", {"model_kwargs": {"weights_only": False}}),
    "unsafe pickles, old name": ("0_T/sentence_roberta_config.json", {"model_args": {"weights_only": False}}),
    "a kernel": ("config.json", {"model_type": "bert", "attn_implementation": "team/kernel"}),
    "a kernel inside": ("config.json", {"model_type": "x", "text_config": {"_attn_implementation": "team/kernel"}}),
    "an adapter": ("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "team/other"}),
}


@pytest.mark.parametrize("what", PLANTED)
def test_settings_that_make_libraries_run_code_are_named(what: str, bert: Path, tmp_path: Path) -> None:
    folder, (name, content) = tmp_path / "model", PLANTED[what]
    shutil.copytree(bert, folder)
    assert code_faults(folder) == []
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    (fault,) = code_faults(folder)
    assert name in fault.where
    with pytest.raises(CompetitionError, match="would run code"):
        resolve_weights(str(folder))


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "\ud800"])
def test_settings_that_are_no_json_are_an_error(text: str, bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "model")
    (tmp_path / "model" / "modules.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CompetitionError):
        resolve_weights(str(tmp_path / "model"))


def test_modules_that_hold_tensors_are_welcome(bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    modules = [Transformer(str(bert)), Pooling(16), Dense(16, 8), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "saved"))
    assert code_faults(tmp_path / "saved") == []
    assert named_code(tmp_path / "saved") == []


def test_links_to_files_outside_are_refused(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "profile"
    (run / "parts").mkdir(parents=True)
    (run / "leaderboard.csv").write_text("")
    (run / "latest.csv").symlink_to("leaderboard.csv")
    (run / "data").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    (run / "cache").mkdir()
    (run / "cache" / "log").symlink_to(outside)
    refuse_links(run, besides=run / "cache")
    outside.write_text("mine")
    (run / "parts" / "timings.csv").symlink_to(outside)
    (run / "absent").symlink_to(tmp_path / "not there yet")
    with pytest.raises(CompetitionError, match="links to files outside") as raised:
        refuse_links(run, besides=run / "cache")
    assert len(raised.value.faults) == 2
