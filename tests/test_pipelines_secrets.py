"""Secrets of the environment and of addresses never reach logs, messages or what a run keeps."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from competition.errors import CompetitionError
from pipelines.cli import main
from pipelines.config import load_recipe
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.secrets import RedactingFormatter, redacted, redacted_values, refuse_secrets

FAKES = {
    "HF_TOKEN": "hf_fakefakefakefakefakefake",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "MLFLOW_TRACKING_PASSWORD": "pa/ss wörd+1",
    "AWS_SECRET_ACCESS_KEY": "wJalr/XUtn+FEMI",
    "AWS_ACCESS_KEY_ID": "AKIAFAKEFAKEFAKE",
    "MY_SECRET": 'with "quotes"',
}


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FAKES.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", FAKES)
def test_values_of_secret_variables_are_hidden(name: str) -> None:
    assert redacted(f"before {FAKES[name]} after") == "before *** after"


def test_secrets_are_hidden_as_addresses_and_json_write_them() -> None:
    assert redacted("https://x/?q=pa%2Fss%20w%C3%B6rd%2B1") == "https://x/?q=***"
    assert redacted(r'{"a": "with \"quotes\""}') == '{"a": "***"}'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("git clone https://me:word@host/x.git", "git clone https://***@host/x.git"),
        ("s3://key:word@bucket", "s3://***@bucket"),
        ("https://host/a?X-Amz-Signature=abc&b=1", "https://host/a?X-Amz-Signature=***&b=1"),
        ("hf_abcdefghijklmnopqrstuvwxyz is a token", "*** is a token"),
        ("red shoes @ home, key=5, http://host/a@b", "red shoes @ home, key=5, http://host/a@b"),
    ],
)
def test_secrets_are_known_by_their_shape_and_other_texts_left_alone(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_short_values_and_other_variables_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT_KEY", "en")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-false")
    assert redacted("en false-false") == "en false-false"


def test_nested_values_keep_their_shape() -> None:
    values = {"a": [FAKES["HF_TOKEN"], 1, None], "b": {"c": True}}
    assert redacted_values(values) == {"a": ["***", 1, None], "b": {"c": True}}


def test_records_lose_secrets_in_message_arguments_and_exception(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(RedactingFormatter("%(message)s"))
    log = logging.getLogger("test-of-secrets")
    log.addHandler(handler)
    try:
        raise ValueError(FAKES["HF_TOKEN"])
    except ValueError:
        log.exception("%s and %s", FAKES["WANDB_API_KEY"], "words", stack_info=True)
    finally:
        log.removeHandler(handler)
    printed = capsys.readouterr().out
    assert "*** and words" in printed
    assert "ValueError: ***" in printed
    assert not [name for name, value in FAKES.items() if value in printed]


def test_an_error_that_nobody_caught_is_printed_without_secrets() -> None:
    code = (
        "import os; from pipelines.output import narrate; narrate(quiet=False, verbose=False)\n"
        "raise RuntimeError(os.environ['HF_TOKEN'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 1
    assert "RuntimeError: ***" in done.stderr
    assert FAKES["HF_TOKEN"] not in done.stderr


@pytest.mark.parametrize("name", ["https://me:word@host/model", "hf_abcdefghijklmnopqrstuvwxyz/model"])
def test_a_recipe_with_a_secret_is_refused_without_saying_it(name: str) -> None:
    with pytest.raises(CompetitionError, match=r"e5-bi\.toml: weights\.name") as raised:
        load_recipe("e5-bi", [f"weights.name={name}"])
    assert "word@" not in str(raised.value)
    assert "hf_a" not in str(raised.value)


def test_settings_with_a_secret_are_not_kept(tmp_path: Path) -> None:
    settings = RunSettings(data="https://me:word@host/data", tasks=("QC",), overrides=(f"x.y={FAKES['HF_TOKEN']}",))
    with pytest.raises(CompetitionError) as raised:
        RunFolder(tmp_path / "run").write_settings(settings)
    assert {fault.where for fault in raised.value.faults} == {"run.toml: data", "run.toml: overrides"}
    assert not (tmp_path / "run").exists()


def test_settings_without_secrets_are_welcome() -> None:
    refuse_secrets({"a": {"b": ("https://host/x", 3)}, "c": None}, "file")


def test_errors_on_the_command_line_hide_secrets(tmp_path: Path) -> None:
    words = ["status", "--run", str(tmp_path / FAKES["WANDB_API_KEY"])]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 3
    assert "***" in done.stderr
    assert FAKES["WANDB_API_KEY"] not in done.output
