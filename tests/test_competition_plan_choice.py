"""The fold plan follows what test looks like, without labels."""

import pandas as pd

from competition.plan_choice import choose_plan
from competition.tasks import QC, QI

TRAIN = pd.DataFrame({"language": "en", "query": [f"q{i}" for i in range(6)], "target": [f"a,b{i}" for i in range(6)]})


def like(targets: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"language": "en", "query": [f"new {t}" for t in targets], "target": targets})


def test_known_targets_in_test_ask_for_query_groups() -> None:
    kind, reason = choose_plan({"train": TRAIN, "test": like(["a,b1", "a,b2", "a,new"])}, QC)
    assert kind == "query-group"
    assert "67%" in reason


def test_new_targets_in_test_ask_for_category_groups() -> None:
    assert choose_plan({"train": TRAIN, "test": like(["a,x", "a,y", "a,b1"])}, QC)[0] == "category-group"


def test_test_counts_before_dev() -> None:
    rows = {"train": TRAIN, "dev": like(["a,x"]), "test": like(["a,b1"])}
    assert choose_plan(rows, QC)[0] == "query-group"


def test_without_other_rows_or_categories_the_default_is_taken() -> None:
    assert choose_plan({"train": TRAIN}, QC)[0] == "category-group"
    assert choose_plan({"train": TRAIN, "test": like(["t"])}, QI)[0] == "query-group"
