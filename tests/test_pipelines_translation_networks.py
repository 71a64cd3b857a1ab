"""MADLAD's and NLLB's code paths on tiny random networks, through transformers and through CTranslate2."""

from pathlib import Path

import pytest

from competition.errors import CompetitionError
from pipelines.translation.ctranslate import CTranslate
from pipelines.translation.protocol import Translator
from pipelines.translation.recipe import CTranslateRecipe, Seq2SeqRecipe
from pipelines.translation.seq2seq import Seq2Seq, load_languages

TEXTS = [
    "red shoes",
    "blue running shoes for dogs and cats",
    "掃除機",
    "zapatos rojos",
    "a",
    "kitchen, dining & bar, toys and all the rest of a very long query that goes on and on",
    "42 wh-1000xm4",
]


def seq2seq(folder: Path, style: str, **settings: object) -> Seq2Seq:
    values = {"kind": "seq2seq", "weights": {"name": str(folder)}, "style": style, "max_new_tokens": 12, **settings}
    return Seq2Seq.load(Seq2SeqRecipe.model_validate(values), device="cpu", threads=1)


def converted(folder: Path, style: str, compute_type: str) -> CTranslate:
    pytest.importorskip("ctranslate2")
    values = {"kind": "ctranslate", "weights": {"name": str(folder)}, "style": style, "max_new_tokens": 12}
    recipe = CTranslateRecipe.model_validate({**values, "compute_type": compute_type})
    return CTranslate.load(recipe, device="cpu", threads=1)


@pytest.fixture(params=["madlad", "nllb"])
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(style: str, request: pytest.FixtureRequest) -> Path:
    path = request.getfixturevalue(style)
    assert isinstance(path, Path)
    return path


def alone(translator: Translator) -> list[str]:
    return [translator.translate([text], source="es", target="en")[0] for text in TEXTS]


def test_a_text_is_translated_the_same_alone_and_in_a_batch(folder: Path, style: str) -> None:
    translator = seq2seq(folder, style)
    together = translator.translate(TEXTS, source="es", target="en")
    assert len(set(together)) > 3, "the tiny network tells texts apart"
    assert together == alone(translator)
    assert together == seq2seq(folder, style, tokens_per_batch=64).translate(TEXTS, source="es", target="en")


def test_the_target_language_matters(folder: Path, style: str) -> None:
    translator = seq2seq(folder, style)
    english, german = (translator.translate(TEXTS, source="es", target=target) for target in ("en", "de"))
    assert english != german


def test_the_source_language_matters_to_nllb_alone(madlad: Path, nllb: Path) -> None:
    for path, style, differs in ((madlad, "madlad", False), (nllb, "nllb", True)):
        translator = seq2seq(path, style)
        read = [translator.languages.inputs(TEXTS, source=source, target="en") for source in ("es", "ja")]
        assert (read[0] != read[1]) is differs


def test_languages_stand_where_the_networks_expect_them(madlad: Path, nllb: Path) -> None:
    for path, style, first, begin in ((madlad, "madlad", "<2en>", None), (nllb, "nllb", "spa_Latn", "eng_Latn")):
        languages = load_languages(seq2seq(path, style).recipe, seq2seq(path, style).weights)
        names = languages.tokenizer.convert_ids_to_tokens
        (ids,) = languages.inputs(["red shoes"], source="es", target="en")
        assert (names(ids[0]), names(ids[-1])) == (first, "</s>")
        start = languages.first_token("en")
        assert (None if start is None else names(start)) == begin
        (cut,) = languages.inputs(["red shoes " * 200], source="es", target="en")
        assert (names(cut[0]), names(cut[-1])) == (first, "</s>")
        assert len(cut) <= languages.max_length


def test_a_language_that_the_network_lacks_has_no_translation(folder: Path, style: str) -> None:
    translator = seq2seq(folder, style)
    assert translator.translate(["shoes"], source="en", target="th") == [""]
    unknown = translator.translate(["zapatos"], source="unk", target="en")
    assert (unknown == [""]) is (style == "nllb")


def test_weights_that_are_nowhere_are_an_error(style: str) -> None:
    with pytest.raises(CompetitionError, match="no weights"):
        seq2seq(Path("/nowhere/at/all"), style)


def test_ctranslate_says_what_transformers_says(
    folder: Path, style: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELSTACK_CACHE", str(tmp_path))
    wanted = seq2seq(folder, style).translate(TEXTS, source="es", target="en")
    exact = converted(folder, style, "float32")
    assert exact.translate(TEXTS, source="es", target="en") == wanted == alone(exact)
    small = converted(folder, style, "int8").translate(TEXTS, source="es", target="en")
    assert sum(one == other for one, other in zip(small, wanted, strict=True)) >= len(TEXTS) - 3
    folders = sorted(path.name for path in (tmp_path / "ctranslate2").iterdir() if not path.name.startswith("."))
    assert [name.rsplit("-", 2)[1] for name in folders] == ["float32", "int8"]


def test_a_conversion_is_made_once(madlad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELSTACK_CACHE", str(tmp_path))
    assert converted(madlad, "madlad", "int8").engine
    (model,) = tmp_path.rglob("model.bin")
    written = model.stat().st_mtime_ns
    assert converted(madlad, "madlad", "int8").engine
    assert model.stat().st_mtime_ns == written


def test_other_weights_lengths_or_precision_are_another_identity(madlad: Path, nllb: Path) -> None:
    plain = seq2seq(madlad, "madlad")
    others = [
        seq2seq(nllb, "madlad"),
        seq2seq(madlad, "madlad", max_new_tokens=13),
        seq2seq(madlad, "madlad", precision="bf16"),
    ]
    identities = [dict(translator.identity) for translator in (plain, *others)]
    assert all(identities.count(identity) == 1 for identity in identities)
    assert dict(seq2seq(madlad, "madlad", tokens_per_batch=64).identity) == identities[0]
