"""Each distinct text once, in blocks that survive a kill, shared by processes; files that a run reads."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.cleaning import normalise_query
from competition.errors import MismatchError
from competition.lexicon import read_lexicon
from competition.sample import write_sample
from pipelines.prepare import prepare, read_translations
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.translation.cache import TranslationCache, cut_blocks
from pipelines.translation.protocol import Resources, Translator
from pipelines.translation.stage import (
    distinct_queries,
    queries_of_data,
    translate_queries,
    translate_run,
    translation_table,
    write_translations,
)
from pipelines.translation.work import Translating, translate_block, translate_blocks, translate_pairs

ROOT = Path(__file__).parent.parent
WORDS = ["zapatos", "botas", "gorra", "calcetines", "camisa", "abrigo", "guantes", "bufanda"]


@dataclass(frozen=True)
class Recorder:
    """A translator of made-up words that remembers what it was asked, and stops for good after some texts."""

    stop_after: int = 10**9
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Translator`."""
        return {"kind": "recorder"}

    def translate(self, texts: Sequence[str], *, source: str, target: str) -> list[str]:
        """See `Translator`."""
        if len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked.extend((source, text) for text in texts)
        return [f"{target} {text[::-1]}" for text in texts]


@dataclass(frozen=True)
class Recorded(Translating):
    """Work with a given translator."""

    made: Recorder = field(default_factory=Recorder)

    def translator(self) -> Translator:
        """The recorder."""
        return self.made


def work(root: Path, made: Recorder | None = None, *, block: int = 4) -> Recorded:
    return Recorded("recorder", block=block, root=root, made=made or Recorder())


def pairs(n: int = 60, *, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, 2)) for _ in range(n)]
    return pd.DataFrame({"language": rng.choice(["es", "pt"], n), "text": texts})


def test_each_distinct_text_is_translated_once(tmp_path: Path) -> None:
    frame, asked = pairs(), work(tmp_path)
    translated = translate_pairs(frame, asked)
    assert set(Counter(asked.made.asked).values()) == {1}
    assert len(asked.made.asked) == len(frame.drop_duplicates())
    assert translated.tolist() == [f"en {text[::-1]}" for text in frame["text"]]
    again = work(tmp_path)
    pd.testing.assert_series_equal(translate_pairs(frame, again), translated)
    assert again.made.asked == []


def test_order_and_index_change_nothing(tmp_path: Path) -> None:
    frame = pairs()
    mixed = frame.sample(frac=1, random_state=1)
    one = translate_pairs(frame, work(tmp_path / "a"))
    other = translate_pairs(mixed, work(tmp_path / "b"))
    pd.testing.assert_series_equal(one, other.sort_index())
    names = [sorted(path.name for path in (tmp_path / side).rglob("*.parquet")) for side in "ab"]
    assert names[0] == names[1]


def test_new_texts_alone_are_translated(tmp_path: Path) -> None:
    translate_pairs(pairs(), work(tmp_path))
    later = work(tmp_path)
    frame = pd.concat([pairs(), pd.DataFrame({"language": ["es"], "text": ["sombrero"]})], ignore_index=True)
    translate_pairs(frame, later)
    assert later.made.asked == [("es", "sombrero")]


def test_what_passes_through_reaches_no_translator(tmp_path: Path) -> None:
    frame = pd.DataFrame({"language": ["en", "es", "ja", "es"], "text": ["shoes", "42", "gps", "botas"]})
    asked = work(tmp_path)
    assert translate_pairs(frame, asked).tolist() == ["shoes", "42", "gps", "en satob"]
    assert asked.made.asked == [("es", "botas")]
    assert translate_pairs(frame.head(3), work(tmp_path / "none")).tolist() == ["shoes", "42", "gps"]
    assert translate_pairs(frame.head(0), work(tmp_path / "none")).tolist() == []


def test_an_interruption_costs_one_block_at_most(tmp_path: Path) -> None:
    frame = pairs()
    first = work(tmp_path, Recorder(stop_after=10))
    with pytest.raises(KeyboardInterrupt):
        translate_pairs(frame, first)
    kept = first.cache(first.made).read()
    assert len(first.made.asked) - 4 <= len(kept) <= len(first.made.asked)
    second = work(tmp_path)
    translated = translate_pairs(frame, second)
    assert not set(second.made.asked) & set(zip(kept["language"], kept["text"], strict=True))
    assert translated.tolist() == translate_pairs(frame, work(tmp_path / "fresh")).tolist()


def test_a_half_written_block_does_not_exist(tmp_path: Path) -> None:
    cache = TranslationCache(tmp_path)
    (block,) = cut_blocks(pairs(3), 10)
    with pytest.raises(ValueError):
        cache.write(block, ["too", "few"])
    assert not cache.has(block)
    assert cache.read().empty
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*.tmp"))


def test_a_block_that_another_process_has_is_left_to_it(tmp_path: Path) -> None:
    cache, made = TranslationCache(tmp_path), Recorder()
    blocks = cut_blocks(pairs(), 8)
    with cache.claimed(blocks[0], wait=False) as ours, cache.claimed(blocks[0], wait=False) as theirs:
        assert (ours, theirs) == (True, False)
    cache.write(blocks[1], translate_block(blocks[1], Recorder(), "en"))
    translate_blocks(blocks, made, cache, "en", tell=None)
    assert set(made.asked).isdisjoint(zip(blocks[1].languages, blocks[1].texts, strict=True))
    assert all(cache.has(block) for block in blocks)
    with cache.claimed(blocks[0], wait=True) as ours:
        assert not ours, "it is finished"


def test_every_recipe_and_target_has_a_cache_of_its_own(tmp_path: Path) -> None:
    glossary = tmp_path / "g.tsv"
    glossary.write_text("en\tde\ndogs\thunde\n", encoding="utf-8")
    given = Resources(glossaries=(glossary,))
    plain = Translating("dictionary", resources=given, root=tmp_path)
    other = Translating("dictionary", ("words=false",), given, target="de", root=tmp_path)
    folders = [each.cache(each.translator()).folder for each in (plain, other)]
    assert folders[0].parent != folders[1].parent
    assert [folder.name for folder in folders] == ["en", "de"]
    glossary.write_text("en\tde\ndogs\thund\n", encoding="utf-8")
    assert plain.cache(plain.translator()).folder != folders[0]


def write_glossary(path: Path) -> Path:
    names = [(concept.names["en"][0], concept.names["es"][0]) for concept in read_lexicon().concepts]
    path.write_text("en\tes\n" + "".join(f"{english}\t{spanish}\n" for english, spanish in names), encoding="utf-8")
    return path


def command(data: Path, out: Path, *more: str) -> list[str]:
    words = ["translate", "--data", str(data), "--out", str(out), "--block", "1", "--device", "cpu", *more]
    return [sys.executable, "-m", "pipelines.cli", *words]


def environment(cache: Path) -> dict[str, str]:
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "RELSTACK_CACHE": str(cache)}
    return {**os.environ, **settings}


def test_a_killed_command_goes_on_where_it_was(tmp_path: Path) -> None:
    write_sample(tmp_path / "data", n_train=900, n_dev=10, n_test=10)
    glossary, cache = write_glossary(tmp_path / "glossary.tsv"), tmp_path / "cache"
    how = ["--recipe", "dictionary", "--glossary", str(glossary)]
    words = command(tmp_path / "data", tmp_path / "out.csv", *how)
    process = subprocess.Popen(words, env=environment(cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(cache.rglob("*.parquet"))) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was killed before its end"
    assert not (tmp_path / "out.csv").exists()
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.parquet")}
    assert len(kept) >= 3
    subprocess.run(words, env=environment(cache), check=True, capture_output=True)
    assert len(list(cache.rglob("*.parquet"))) > len(kept)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    fresh = command(tmp_path / "data", tmp_path / "fresh.csv", *how, "--workers", "2")
    done = subprocess.run(fresh, env=environment(tmp_path / "other"), check=True, capture_output=True, text=True)
    assert "/s, " in done.stderr
    assert (tmp_path / "fresh.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()


def test_a_recipe_that_lacks_its_file_says_so(tmp_path: Path) -> None:
    write_sample(tmp_path / "data", n_train=60, n_dev=10, n_test=10)
    words = command(tmp_path / "data", tmp_path / "out.csv", "--recipe", "table", "--workers", "2")
    done = subprocess.run(words, env=environment(tmp_path / "cache"), capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "--table FILE" in done.stderr


def test_distinct_queries_do_not_depend_on_the_order_of_rows() -> None:
    rows = pd.DataFrame({"language": ["es", "es", "de", "es"], "query": ["ＵＳＢ hub", " USB  HUB", "Straße", ""]})
    queries = distinct_queries([rows])
    assert list(queries.itertuples(index=False, name=None)) == [
        ("de", "strasse", "straße"),
        ("es", "usb hub", "usb hub"),
    ]
    pd.testing.assert_frame_equal(queries, distinct_queries([rows.iloc[::-1].head(2), rows]))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_sample(tmp_path / "data", n_train=120, n_dev=40, n_test=40)
    return tmp_path / "data"


def test_what_translate_writes_is_what_a_run_reads(data: Path, tmp_path: Path) -> None:
    translated = translate_queries(queries_of_data(data, ("QC", "QI")), work(tmp_path / "cache"))
    write_translations(translated, tmp_path / "out.csv")
    run = RunFolder(tmp_path / "run")
    prepare(run, RunSettings(data=str(data), tasks=("QC", "QI"), translations=str(tmp_path / "out.csv")))
    for task in ("QC", "QI"):
        for rows in run.rows(task).values():
            foreign = rows[rows["language"] != "en"]
            assert (foreign["query_en"] != "").all()
            assert (rows.loc[rows["language"] == "en", "query_en"].map(normalise_query)
                    == rows.loc[rows["language"] == "en", "query"].map(normalise_query)).all()  # fmt: skip


def test_a_run_keeps_its_translations(data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    prepare(run, RunSettings(data=str(data), tasks=("QC", "QI")))
    assert (run.rows("QC")["dev"]["query_en"] == "").all()
    translated = translate_run(run, work(tmp_path / "cache"))
    rows = run.rows("QC")["dev"]
    foreign = rows["language"] != "en"
    key = translated.set_index(["language", "query"])["query_en"]
    wanted = key.reindex(pd.MultiIndex.from_arrays([rows["language"], rows["query"].map(normalise_query)]))
    assert rows["query_en"].tolist() == wanted.tolist()
    assert foreign.any()
    translate_run(run, work(tmp_path / "cache"))
    table = Translating("table", resources=Resources(tables=(data / "translations.csv",)), root=tmp_path / "cache")
    with pytest.raises(MismatchError, match="other translations"):
        translate_run(run, table)


def test_english_is_translated_if_asked_for(tmp_path: Path) -> None:
    queries = distinct_queries([pd.DataFrame({"language": ["en", "es"], "query": ["zapatos", "botas"]})])
    plain = translate_queries(queries, work(tmp_path))
    assert plain["query_en"].tolist() == ["zapatos", "en satob"]
    asked = work(tmp_path)
    assert translate_queries(queries, asked, english=True)["query_en"].tolist() == ["en sotapaz", "en satob"]
    assert ("unk", "zapatos") in asked.made.asked


def test_quality_is_that_of_what_models_read(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    human = read_translations(data / "translations.csv")
    right = Translating("table", resources=Resources(tables=(data / "translations.csv",)), root=tmp_path)
    queries = queries_of_data(data, ("QC", "QI"))
    perfect = translation_table(translate_queries(queries, right), human)
    assert set(perfect["language"]) == set(queries["language"])
    assert (perfect.set_index("language").drop("en")["chrf"] > 99.9).all(), "English keeps its typing errors"
    assert (perfect["without"] == 0).all()
    poor = translation_table(translate_queries(queries, work(tmp_path / "poor")), human).set_index("language")
    assert (poor.drop("en")["chrf"] < 30).all()
    none = translate_queries(queries, work(tmp_path / "none")).assign(query_en="")
    untouched = translation_table(none, human)
    assert (untouched["chrf"] == untouched["chrf_untranslated"]).all()
    assert untouched["without"].sum() == len(queries)


# Kills and damage


def test_a_damaged_block_is_deleted_and_the_others_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs = pd.DataFrame({"language": "de", "text": ["rot", "blau", "gelb"]})
    cache, blocks = TranslationCache(tmp_path), cut_blocks(pairs, 1)
    (tmp_path / ".locks").mkdir()
    (tmp_path / ".of-a-killed-process.parquet.17.tmp").write_bytes(b"PAR1half")
    for block in blocks:
        with cache.claimed(block, wait=True) as ours:
            assert ours
            cache.write(block, [block.texts[0].upper()])
    assert not list(tmp_path.glob("*.tmp"))
    assert not list((tmp_path / ".locks").iterdir()), "locks of blocks that are there do not pile up"
    damaged = tmp_path / f"{blocks[0].name}.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-4])
    assert sorted(cache.read()["text"]) == sorted(text for block in blocks[1:] for text in block.texts)
    assert [message for message in caplog.messages if str(damaged) in message]
    with cache.claimed(blocks[0], wait=True) as ours:
        assert ours, "it is translated again"
