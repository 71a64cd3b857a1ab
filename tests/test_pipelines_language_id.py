"""Languages of short queries: script first, Japanese without kana, and the detectors that are installed."""

import pandas as pd
import pytest

from competition.lexicon import LANGUAGES, read_lexicon
from pipelines.language_id import Engine, identify, japanese_or_chinese, language_table

ENGINES: list[Engine] = []
for _engine, _package in (("lingua", "lingua"), ("langid", "py3langid")):
    try:
        __import__(_package)
        ENGINES.append(_engine)  # type: ignore[arg-type]
    except ImportError:
        pass

engines = pytest.mark.parametrize("engine", ENGINES or [pytest.param("", marks=pytest.mark.skip("no detector"))])


def names() -> pd.DataFrame:
    pairs = [(language, name) for c in read_lexicon().concepts for language in LANGUAGES for name in c.names[language]]
    return pd.DataFrame(pairs, columns=["language", "text"]).drop_duplicates("text", keep=False, ignore_index=True)


@engines
def test_product_names_are_identified(engine: Engine) -> None:
    queries = names()
    found = identify(queries["text"], LANGUAGES, engine=engine)
    agree = found["language"] == queries["language"]
    by_language = agree.groupby(queries["language"]).mean()
    assert by_language[["ko", "th", "ar"]].min() > 0.98
    assert by_language.min() > 0.5
    assert agree.mean() > 0.75
    assert found["confidence"].between(0, 1).all()
    assert found["confidence"][agree].mean() > found["confidence"][~agree].mean()


@engines
def test_answers_stay_among_the_competitions_languages_and_codes(engine: Engine) -> None:
    texts = pd.Series(["giày chạy bộ nam", "обувь для бега", "42"], index=[3, 2, 1])
    found = identify(texts, ["en", "de", "vn"], engine=engine)
    assert found["language"].tolist()[0] == "vn"
    assert found["language"].tolist()[1] in {"en", "de", "vn"}
    assert (found.loc[1, "language"], found.loc[1, "confidence"]) == ("unk", 0.0)


@engines
def test_a_text_is_identified_the_same_alone_and_among_others(engine: Engine) -> None:
    texts = names()["text"].head(60)
    together = identify(texts, LANGUAGES, engine=engine)
    alone = pd.concat([identify(texts.iloc[[i]], LANGUAGES, engine=engine) for i in range(len(texts))])
    pd.testing.assert_frame_equal(together, alone)


@engines
def test_japanese_without_kana_is_not_chinese(engine: Engine) -> None:
    found = identify(pd.Series(["掃除機", "吸尘器", "人形"]), ["en", "ja", "zh"], engine=engine)
    assert found["language"].tolist()[:2] == ["ja", "zh"]
    assert found["confidence"].tolist()[2] <= 0.5


def test_shared_characters_decide_nothing() -> None:
    assert japanese_or_chinese("人形") is None
    assert japanese_or_chinese("한") is None


@engines
def test_the_report_says_what_else_the_queries_seem(engine: Engine) -> None:
    queries = pd.DataFrame({"language": ["th", "th", "en"], "text": ["รองเท้า", "shoes for running men", "shoes"]})
    table = language_table(queries, engine=engine).set_index("language")
    assert table.loc["th", "agree"] == 0.5
    assert table.loc["th", "others"] == "en 50.0%"
    assert table.loc["th", "scripts"] == "thai 50.0%, latin 50.0%"
