"""The tuned blend: it finds what is to be gained, takes the simplest that is as good, and goes on after a kill."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oof.mix
from competition.metrics import f1
from oof.blend import ConvexBlend, Mean
from oof.combiner import NOTHING, Combiner
from oof.crossfit import fit_final
from oof.frame import PredictionFrame
from oof.logistic import LogisticStacker
from oof.mix import LEAST_SHARE, MEMBERS, FittedMix, Structure, TunedBlend, mixed
from oof.simulate import Simulated, simulate
from oof.stack import LightGBMStacker

FEW_TREES = LightGBMStacker(max_rounds=12)


def blend(n_trials: int = 8, *, journal: Path | None = None) -> TunedBlend:
    return TunedBlend(n_trials=n_trials, stack=FEW_TREES, journal=journal)


@given(st.lists(st.integers(0, 5), min_size=len(MEMBERS), max_size=len(MEMBERS)).filter(any))
def test_a_structure_gives_the_shares_that_it_was_made_of(weights: list[int]) -> None:
    shares = np.array(weights) / sum(weights)
    assert Structure.of(dict(zip(MEMBERS, shares.tolist(), strict=True))).shares() == pytest.approx(shares)


def test_a_tiny_share_is_none() -> None:
    shares = Structure.of({"mean": LEAST_SHARE / 2, "trees": 1 - LEAST_SHARE / 2}).shares()
    assert shares.tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_a_mixture_is_the_weighted_mean_of_log_odds() -> None:
    assert mixed([np.array([0.5]), np.array([0.8])], (0.25, 0.75))[0] == pytest.approx(4**0.75 / (1 + 4**0.75))
    assert mixed([np.array([0.0, 1.0])], (1.0,)).tolist() == [0, 1]


def test_equal_learners_get_the_simplest_member() -> None:
    """Nothing is to be gained over the mean, so nothing but luck could be found."""
    rng = np.random.default_rng(0)
    rows = simulate(4000, 1, 0, language_quality=False, correlation=0.0).oof.rows.drop(columns=["query", "target"])
    truth = rng.normal(rows["label"].astype(float).to_numpy() * 2 - 1, 1.0)
    scores = 1 / (1 + np.exp(-truth[:, None] - rng.normal(size=(4000, 4))))
    frame = PredictionFrame(rows, scores, tuple("abcd"))
    assert blend(25).over(frame).structure(NOTHING) == Structure.of({"mean": 1.0})


def _fresh_f1(world: Simulated, combiner: Combiner) -> float:
    return f1(world.fresh.labels, fit_final(combiner, world.oof).decide(world.fresh))


def test_where_quality_differs_by_language_it_wins_on_fresh_rows() -> None:
    world = simulate(5000, 4, 4, language_quality=True, correlation=0.2, n_fresh=30_000)
    best_simple = max(_fresh_f1(world, simple) for simple in (Mean(), ConvexBlend(), LogisticStacker()))
    assert _fresh_f1(world, blend()) > best_simple + 0.004


def test_it_is_not_worse_than_the_plain_mean_on_few_rows() -> None:
    """On 1,500 rows, where tuning could only overfit; each fresh F1 has a standard error of .002."""
    worlds = [
        simulate(1500, 4, seed, language_quality=bool(seed % 2), correlation=0.3, n_fresh=30_000) for seed in range(3)
    ]
    gains = [_fresh_f1(world, blend()) - _fresh_f1(world, Mean()) for world in worlds]
    assert np.mean(gains) > -0.001
    assert min(gains) > -0.006


def test_learners_of_noise_cost_nothing() -> None:
    noisy = simulate(4000, 3, 4, language_quality=False, correlation=0.1, noise_learners=3, n_fresh=30_000)
    useful = Simulated(*(frame.with_learners(noisy.oof.learners[:3]) for frame in noisy))
    assert _fresh_f1(noisy, blend()) > _fresh_f1(useful, blend()) - 0.0015
    assert _fresh_f1(noisy, Mean()) < _fresh_f1(useful, Mean()) - 0.01, "it would cost a mean a lot"


def test_the_same_seed_gives_the_same_blend() -> None:
    world = simulate(1500, 3, 5, language_quality=True, correlation=0.2)
    first, again = (blend(12).fit(world.oof) for _ in range(2))
    assert first == again
    assert np.array_equal(first.predict(world.fresh), again.predict(world.fresh))


def test_a_search_that_was_cut_off_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = simulate(1500, 3, 5, language_quality=True, correlation=0.2).oof
    whole = blend(14, journal=tmp_path / "whole.log").fit(frame)
    losses = [0]
    loss = oof.mix._loss

    def dies_at_the_tenth(*args: np.ndarray) -> float:
        losses[0] += 1
        if losses[0] == 10:
            raise KeyboardInterrupt
        return loss(*args)

    monkeypatch.setattr(oof.mix, "_loss", dies_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        blend(14, journal=tmp_path / "cut.log").fit(frame)
    monkeypatch.setattr(oof.mix, "_loss", loss)
    assert blend(14, journal=tmp_path / "cut.log").fit(frame) == whole


def test_trials_of_other_rows_are_not_gone_on_with(tmp_path: Path) -> None:
    first, second = (simulate(900, 3, seed, language_quality=True, correlation=0.2).oof for seed in (0, 1))
    blend(journal=tmp_path / "log").fit(first)
    assert blend(journal=tmp_path / "log").fit(second) == blend().fit(second)


def test_a_frame_of_one_fold_gets_the_mean() -> None:
    frame = simulate(300, 3, 0, language_quality=False, correlation=0.2).oof
    fitted = blend().fit(frame.take(frame.fold == 1))
    assert list(fitted.members) == ["mean"]


def test_members_without_a_share_are_not_kept(tmp_path: Path) -> None:
    frame = simulate(900, 3, 0, language_quality=True, correlation=0.2).oof
    fitted = blend().fit(frame)
    assert len(fitted.members) == len(fitted.shares) == np.count_nonzero(fitted.shares)
    fitted.to_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == set(fitted.members)
    assert FittedMix.from_folder(tmp_path) == fitted


def test_excluded_features_are_not_looked_at() -> None:
    frame = simulate(900, 2, 0, language_quality=True, correlation=0.2).oof
    without = TunedBlend(stack=replace(FEW_TREES, excluded=("query_size",)))
    fitted = without.over(frame).members["trees"].fit_without(NOTHING)
    assert "query_size" not in fitted.features


def test_tuning_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    blend(4).fit(simulate(300, 2, 0, language_quality=False, correlation=0.2).oof)
    assert capfd.readouterr() == ("", "")
