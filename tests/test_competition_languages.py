"""Scripts and language codes; English that is not English."""

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from competition.languages import iso_code, letters_by_script, own_scripts, relabel_unknown, script_of, scripts_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("chaussures d'été", "latin"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "latin"),
        ("ﾊﾝｶｸ", "kana"),
        ("コーヒー", "kana"),
        ("吸尘器", "han"),
        ("掃除機のパーツ", "kana"),
        ("무선 이어폰", "hangul"),
        ("أحذية", "arabic"),
        ("รองเท้า", "thai"),
        ("обувь", "cyrillic"),
        ("παπούτσια", "greek"),
        ("iphone 15 ケース", "latin"),
        ("360 - 5,5", ""),
        ("", ""),
    ],
)
def test_a_script_is_that_of_most_letters(text: str, script: str) -> None:
    assert script_of(text) == script


def test_every_language_of_the_lexicon_is_written_in_its_own_scripts() -> None:
    from competition.lexicon import LANGUAGES, read_lexicon

    for language in LANGUAGES:
        names = [names[language][0] for concept in read_lexicon().concepts if language in (names := concept.names)]
        own = [name for name in names if script_of(name) in own_scripts(language)]
        assert len(own) > 0.9 * len(names) > 0, language


@given(st.text())
@example("\U00017000")  # a Tangut letter, which has no name
def test_any_text_has_a_script_or_no_letters(text: str) -> None:
    counts = letters_by_script(text)
    assert counts.total() <= len(text)
    assert bool(script_of(text)) == (counts.total() > 0)


def test_texts_keep_their_index() -> None:
    texts = pd.Series(["b", "掃", "b"], index=[5, 3, 1])
    assert scripts_of(texts).to_dict() == {5: "latin", 3: "han", 1: "latin"}


def test_vietnamese_has_two_codes() -> None:
    assert iso_code("vn") == iso_code("vi") == "vi"


def test_only_english_that_translates_to_something_else_is_unknown() -> None:
    rows = pd.DataFrame(
        {
            "language": ["en", "en", "en", "es", "en"],
            "query": ["Shoes", "zapatos", "botas", "bota", "STRASSE"],
            "query_en": ["shoes", "shoes", "", "boot", "straße"],
        },
        index=[9, 8, 7, 6, 5],
    )
    assert relabel_unknown(rows).to_dict() == {9: "en", 8: "unk", 7: "en", 6: "es", 5: "en"}
