"""The report on cuts: a shifted file is noticed, a like one is not, and one line a language."""

import numpy as np

from oof.blend import Mean
from oof.crossfit import cross_fit, fit_final
from oof.simulate import LANGUAGES, simulate
from pipelines.cut_report import cut_tables

WORLD = simulate(6000, 3, 0, language_quality=False, correlation=0.3, n_fresh=20_000)
FITTED = fit_final(Mean(), WORLD.oof)
SCORES = cross_fit(Mean(), WORLD.oof).scores


def test_a_file_with_fewer_positives_is_noticed_and_cut_for_its_own_share() -> None:
    kept = (WORLD.fresh.labels == 0) | (np.arange(WORLD.fresh.n_rows) % 4 == 0)
    rare = WORLD.fresh.take(kept)
    others = {"dev": FITTED.predict(WORLD.fresh), "test": FITTED.predict(rare)}
    shares = cut_tables(WORLD.oof, SCORES, others, FITTED.threshold)["share of positives"].set_index("split")
    assert shares["rows"].to_dict() == {"dev": WORLD.fresh.n_rows, "test": rare.n_rows}
    assert abs(shares.loc["dev", "expected_rate"] - WORLD.fresh.labels.mean()) < 0.02
    assert abs(shares.loc["test", "expected_rate"] - rare.labels.mean()) < 0.03
    assert shares.loc["test", "p_value"] < 1e-6
    assert shares.loc["test", "decided_matched"] < shares.loc["test", "decided"]


def test_every_language_has_its_line_and_like_ones_the_global_cut() -> None:
    tables = cut_tables(WORLD.oof, SCORES, {}, FITTED.threshold)
    assert set(tables) == {"calibration", "cuts per language"}
    cuts = tables["cuts per language"]
    assert cuts["language"].tolist() == list(LANGUAGES)
    assert cuts["rows"].sum() == WORLD.oof.n_rows
    assert (cuts["cut"].nunique() == 1) == np.isinf(cuts["strength"]).all()
