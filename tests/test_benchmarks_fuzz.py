"""Every reader answers damaged files with a value or a CompetitionError; what the fuzzer found stays mended."""

import io
import json
import os
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.errors import CompetitionError
from competition.json_files import DEEPEST, parse_json, read_json, shape_faults
from competition.parquet_files import read_frame
from competition.rows import read_rows
from competition.tasks import QI
from oof.store import PartKey, PartStore, sha256
from oof.trees import load_booster
from pipelines.array_files import read_arrays
from pipelines.config import load_recipe, parse_override
from pipelines.run_folder import RunFolder
from pipelines.search_space import read_dimension
from pipelines.study_store import StudyStore
from pipelines.timing import read_timings
from submissions.leaderboard import Leaderboard
from submissions.validate import validate_files

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # they are scripts, not a package
import fuzz
import fuzz_readers

MANY, FEW = 100, 12
MENDED = ("timings", "embeddings", "kept-translations")  # what is damaged there is made again, or passed over
SLOW = (
    "rows.parquet",
    "rows.jsonl",
    "run",
    "parts",
    "ensembles",
    "pseudo",
    "students",
    "submission",
    "weights",
    "folds",
    "augmented",
    "study",
)
WORDS = {"what": "the file", "advice": "make it again"}


@pytest.fixture(scope="module")
def corpora(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of valid files for every reader."""
    folder = tmp_path_factory.mktemp("corpora")
    (folder / "run").symlink_to(finished_run.parent)
    copied = folder / "copy"
    fuzz_readers.shutil.copytree(finished_run, copied)  # sets and students are added to it
    return fuzz_readers.make_corpora(RunFolder(copied), folder / "corpora")


@pytest.mark.parametrize("reader", fuzz_readers.READERS, ids=lambda reader: reader.name)
def test_a_damaged_file_gives_a_value_or_our_error(
    reader: fuzz_readers.Reader, corpora: dict[str, Path], tmp_path: Path
) -> None:
    seen = set()
    for number in range(FEW if reader.name in SLOW else MANY):
        folder = tmp_path / str(number)
        done = fuzz.damage(reader, corpora[reader.name], folder, f"test {reader.name} {number}")
        found = fuzz.outcome(reader, folder)
        assert found in (fuzz.VALUE, CompetitionError.__name__), f"{done}\n{found}"
        seen.add(found)
    assert CompetitionError.__name__ in seen or reader.name in MENDED


def test_the_benchmark_counts_what_fails_hangs_and_crashes(
    corpora: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(folder: Path) -> None:
        number = int(folder.name.rpartition("-")[2])
        if number == 1:
            raise KeyError("x")
        if number == 2:
            raise CompetitionError("as it should be")
        while number == 3:
            pass

    monkeypatch.setattr(fuzz, "SECONDS_PER_INPUT", 1.0)
    reader, tally = fuzz.Reader("odd", lambda run, folder: None, ("*",), read), fuzz.Tally()
    following = fuzz.run_batch(reader, corpora["timings"], tmp_path, first=0, seed=0, tally=tally)
    assert following == 4
    assert dict(tally.outcomes) == {"a value": 1, "KeyError": 1, "CompetitionError": 1, "hang": 1}
    assert [number for number, _ in tally.failures] == [1, 3]
    assert {path.parent.name for path in tmp_path.rglob("WHAT-HAPPENED.txt")} == {"odd-1", "odd-3"}
    assert [*fuzz.lines_of({"odd": tally})][-5:-1] == [
        "RESULT inputs 4", "RESULT tracebacks 1", "RESULT hangs 1", "RESULT crashes 0",
    ]  # fmt: skip


# Generated values

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
SHAPE = {"a": int, "b": {"c": list[float], "d": dict[str, str]}, "e": str | None}


@given(VALUES)
def test_json_of_any_shape_is_held_against_the_one_wanted(values: object) -> None:
    faults = list(shape_faults(values, SHAPE, "x.json"))
    assert all(str(fault).startswith("x.json") for fault in faults)
    assert faults or (isinstance(values, dict) and {"a", "b", "e"} <= values.keys())


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.integers(-(2**63), 2**63 - 1), st.lists(FINITE), st.none() | st.text())
def test_json_of_the_wanted_shape_has_no_faults(a: int, c: list[float], e: str | None) -> None:
    assert not list(shape_faults({"a": a, "b": {"c": c, "d": {"x": "y"}}, "e": e}, SHAPE, "x.json"))


@given(st.binary(max_size=200) | VALUES.map(lambda values: json.dumps(values).encode()))
def test_bytes_are_json_or_a_value_error(data: bytes) -> None:
    with suppress(ValueError):
        json.dumps(parse_json(data), ensure_ascii=False).encode()


@given(st.text(max_size=60) | st.from_regex(r"[a-z.]{1,12}=[\[\]{}\"'a-z0-9=.,: \n]{0,40}", fullmatch=True))
def test_any_override_and_any_space_is_read_or_refused(text: str) -> None:
    for read in (lambda: parse_override(text), lambda: load_recipe("lexical", [text])):
        with suppress(CompetitionError):
            read()
    read_dimension(text)


# What was found


@pytest.mark.parametrize("text", ["[" * 10_000, '{"a":' * 10_000, "[" * 70 + "]" * 70])
def test_deep_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": ' + text + "}", encoding="utf-8")
    with pytest.raises(CompetitionError, match=r"the file is damaged[\s\S]*What to do: make it again"):
        read_json(path, {}, **WORDS)


def test_json_as_deep_as_ours_may_be_is_read(tmp_path: Path) -> None:
    path, n = tmp_path / "x.json", DEEPEST - 2
    path.write_text('{"a": ' + "[" * n + "]" * n + "}", encoding="utf-8")
    assert "a" in read_json(path, {}, **WORDS)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [Path.mkdir, _pipe, _endless], ids=["folder", "pipe", "device"])
@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_json(path, {}, **WORDS),
        lambda path: read_frame(path, {"id": "id"}, **WORDS),
        lambda path: read_arrays(path, ("keys",), **WORDS),
        lambda path: read_rows(path.rename(path.with_suffix(".csv")), QI, labelled=True),
        lambda path: read_rows(path.rename(path.with_suffix(".parquet")), QI, labelled=True),
        load_booster,
        read_timings,
        Leaderboard.read_csv,
        lambda path: load_recipe(str(path.rename(path.with_suffix(".toml")))),
        lambda path: validate_files(path.rename(path.with_suffix(".zip")), {"QI": pd.DataFrame()}, [QI]),
    ],
)
def test_what_is_no_file_is_not_waited_for(
    tmp_path: Path, put: Callable[[Path], object], read: Callable[[Path], object]
) -> None:
    put(tmp_path / "x")
    with pytest.raises(CompetitionError):
        read(tmp_path / "x")


@pytest.mark.parametrize(
    "text",
    [
        'kind = "lexical"\nx = ' + "[" * 10_000,
        'kind = "lexical"\n' + ".".join("a" * 10_000) + " = 1",
        'kind = "lexical"\nx = ' + "9" * 5000,
        'kind = "lexical"\n[head]\nc = nan',
        'kind = "lexical"\n[head]\nc = inf',
        'kind = "lexical"\nx = ' + "{a = " * 100 + "1" + "}" * 100,
    ],
    ids=["deep", "dotted", "digits", "nan", "inf", "tables"],
)
def test_recipes_of_any_depth_and_size_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CompetitionError, match=r"mine\.toml") as caught:
        load_recipe(str(path))
    assert len(str(caught.value)) < 2000


def test_a_name_that_no_file_can_have_is_no_recipe() -> None:
    with pytest.raises(CompetitionError, match="no recipe is called"):
        load_recipe("a" * 5000)


@pytest.mark.parametrize("value", ["[" * 5000, "9" * 5000, "x" * 20_000, "\udcff"])
def test_odd_overrides_are_refused(value: str) -> None:
    with pytest.raises(CompetitionError):
        load_recipe("lexical", [f"head.c={value}"])


def test_dots_without_end_are_no_range() -> None:
    assert "characters" in str(read_dimension("head.c=" + "." * 100_000 + "["))


def test_a_number_of_thousands_of_digits_is_a_fault(finished_run: Path, tmp_path: Path) -> None:
    rows = RunFolder(finished_run).rows("QI")["test"]
    path = tmp_path / "submit_QI.txt"
    path.write_text('{"id": 1, "x": ' + "9" * 5000 + "}\n", encoding="utf-8")
    with pytest.raises(CompetitionError, match=r"submit_QI\.txt:1"):
        validate_files(path, {"QI": rows}, [QI])


def test_a_line_of_many_keys_is_read_in_linear_time(tmp_path: Path) -> None:
    # With counting by comparison this was 10^10 steps: the test would not come back.
    line = "{" + ",".join(f'"k{i}":0' for i in range(100_000)) + ',"k0":1}'
    path = tmp_path / "train_QI.jsonl"
    path.write_text(line + "\n" + "{}\n" * 50, encoding="utf-8")
    with pytest.raises(CompetitionError):
        read_rows(path, QI, labelled=True)
    path = path.rename(tmp_path / "submit_QI.txt")
    with pytest.raises(CompetitionError, match="repeated"):
        validate_files(path, {"QI": _rows_of_one()}, [QI])


def _rows_of_one() -> pd.DataFrame:
    texts = {"language": "en", "query": "a", "target": "b", "raw_query": "a", "raw_target": "b"}
    return pd.DataFrame([{"id": 1, **texts}])


def test_a_zip_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "submit.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("submit_QI.txt", "w") as member:
        for _ in range(64):
            member.write(b" " * 2**20)
    with pytest.raises(CompetitionError, match="claim to unpack to"):
        validate_files(path, {"QI": _rows_of_one()}, [QI])


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_unpack_without_a_limit_are_refused(tmp_path: Path, packing: int) -> None:
    path = tmp_path / "submit.zip"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("submit_QI.txt", "x" * 1000)
    with pytest.raises(CompetitionError, match="a deflated member"):
        validate_files(path, {"QI": _rows_of_one()}, [QI])


SCORES = {"id": "id", "score": "number"}


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (pa.table({"id": [1]}), "no column of this name"),
        (pa.table({"id": [1], "score": ["x"]}), "a column of type string"),
        (pa.table({"id": [1], "score": [[0.5]]}), "a column of type list"),
        (pa.table({"id": [1], "score": pa.array([None], pa.float64())}), "1 nulls"),
        (pa.table({"id": [1], "score": [0.5], "x": [{"a": 1}]}), "a column of type struct"),
        (pa.table([[1], [0.5], [0.5]], names=["id", "score", "score"]), "2 columns of this name"),
        (pa.table({"id": pa.array([0] * 200_000), "score": [0.5] * 200_000}), "claims 200,000 rows"),
    ],
)
def test_other_columns_are_named(tmp_path: Path, table: pa.Table, found: str) -> None:
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(CompetitionError, match=found):
        read_frame(tmp_path / "x.parquet", SCORES, **WORDS)  # type: ignore[arg-type]


def test_categories_that_unpack_to_gigabytes_are_refused_before_they_do(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x" * 200_000]))
    pq.write_table(pa.table({"id": range(20_000), "text": texts}), tmp_path / "x.parquet")
    with pytest.raises(CompetitionError, match="bytes of values"):
        read_frame(tmp_path / "x.parquet", {"id": "id", "text": "text"}, **WORDS)


def test_categories_are_read_as_texts_and_metadata_is_not_believed(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": [3, 4], "text": pd.Categorical(["a", "b"]), "label": pd.array([1, None], dtype="Int8")})
    table = pa.Table.from_pandas(frame).replace_schema_metadata({b"pandas": b"[" * 10_000})
    pq.write_table(table, tmp_path / "x.parquet")
    found = read_frame(tmp_path / "x.parquet", {"id": "id", "text": "text", "label": "label"}, **WORDS)
    pd.testing.assert_frame_equal(found, frame.assign(text=frame["text"].astype("str")))


def _archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        _archive(),
        _archive(keys=b""),
        _archive(keys=_npy(np.array([{"a": 1}], dtype=object))),
        _archive(keys=_npy(np.zeros(3)).replace(b"(3,)", b"(10**9,)"[:4] + b",)")),
        _archive(keys=_npy(np.zeros(3))[:-1]),
        _archive(keys=_npy(np.zeros(3)).replace(b"'<f8'", b"'<f4'")),
        _archive(keys=_npy(np.zeros(3)).replace(b"(3,)", b"((((")),
    ],
)
def test_arrays_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(CompetitionError, match="the file cannot be read"):
        read_arrays(tmp_path / "x.npz", ("keys",), **WORDS)


@pytest.fixture(scope="module")
def trees() -> str:
    """Three trees of LightGBM with a category."""
    import lightgbm as lgb

    features = np.random.default_rng(0).random((300, 4))
    features[:, 3] = np.arange(300) % 5
    data = lgb.Dataset(features, (features[:, 0] + features[:, 3] > 2).astype(int), categorical_feature=[3])
    return str(lgb.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 3).model_to_string())


def test_trees_are_read_as_lightgbm_reads_them(trees: str, tmp_path: Path) -> None:
    import lightgbm as lgb

    (tmp_path / "trees.txt").write_text(trees, encoding="utf-8")
    rows = np.random.default_rng(1).random((50, 4)) * 5
    expected = lgb.Booster(model_str=trees).predict(rows, num_threads=1)
    np.testing.assert_array_equal(load_booster(tmp_path / "trees.txt").predict(rows, num_threads=1), expected)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("left_child=", "left_child=9"),
        ("right_child=", "right_child=-9"),
        ("left_child=1", "left_child=0"),
        ("split_feature=", "split_feature=9"),
        ("num_leaves=", "num_leaves=9"),
        ("num_cat=1", "num_cat=9"),
        ("cat_boundaries=0", "cat_boundaries=7"),
        ("max_feature_idx=3", "max_feature_idx=2"),
        ("leaf_value=", "leaf_value=nan "),
        ("is_linear=0", "is_linear=1"),
        ("objective=binary", "objective=multiclass"),
        ("end of trees", "end"),
        ("tree\n", "tree\r\n"),
    ],
)
def test_trees_that_would_end_the_process_are_refused(trees: str, tmp_path: Path, old: str, new: str) -> None:
    assert old in trees
    (tmp_path / "trees.txt").write_text(trees.replace(old, new), encoding="utf-8", newline="")
    with pytest.raises(CompetitionError, match="trees cannot be read"):
        load_booster(tmp_path / "trees.txt")


def test_stray_lines_beside_the_trees_are_not_shown_to_lightgbm(trees: str, tmp_path: Path) -> None:
    (tmp_path / "trees.txt").write_text(trees.replace("[boosting: gbdt]", "[boosting: gbdt]\n#\n"), encoding="utf-8")
    assert load_booster(tmp_path / "trees.txt").num_trees() == 3


def test_scores_whose_digest_was_made_to_fit_are_checked_all_the_same(finished_run: Path, tmp_path: Path) -> None:
    key, store = PartKey("QI", "lexical", 0), PartStore(tmp_path / "parts")
    fuzz_readers.shutil.copytree(finished_run / "parts" / "QI" / "lexical", tmp_path / "parts" / "QI" / "lexical")
    path, manifest = store.folder(key) / "dev.parquet", store.folder(key) / "manifest.json"
    frame = pd.read_parquet(path)
    frame.loc[0, "score"] = 1.5
    frame.to_parquet(path, index=False)
    values = json.loads(manifest.read_text(encoding="utf-8"))
    values["files"]["dev.parquet"] = sha256(path)
    manifest.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(CompetitionError, match="out of range"):
        store.read(key, "dev")


@pytest.mark.parametrize("tail", ["{", '{"op_code": 1}'])
def test_a_journals_last_line_that_a_kill_cut_off_is_dropped(tmp_path: Path, tail: str) -> None:
    store = StudyStore(tmp_path / "study")
    store.agree_on({})
    store.open("maximize").ask()
    with store.journal.open("a", encoding="utf-8") as file:
        file.write(tail)
    assert len(store.open("maximize").trials) == 1


@pytest.mark.parametrize("tail", ['{"op_code": 99}\n', "[]\n", '{"op_code": 4, "worker_id": []}\n'])
def test_a_journal_that_is_broken_at_its_end_is_refused_before_more_is_written(tmp_path: Path, tail: str) -> None:
    store = StudyStore(tmp_path / "study")
    store.agree_on({})
    store.open("maximize").ask()
    with store.journal.open("a", encoding="utf-8") as file:
        file.write(tail)
    with pytest.raises(CompetitionError, match="is damaged"):
        store.open("maximize")


def test_a_folder_in_the_place_of_a_studys_settings_is_refused(tmp_path: Path) -> None:
    store = StudyStore(tmp_path)
    store.settings_file.mkdir()
    with pytest.raises(CompetitionError, match="a study cannot be read"):
        store.agree_on({"seed": 1})
