"""Cross-fitting: nothing is scored by what has seen it, and the estimate holds on fresh rows."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from competition.errors import CompetitionError
from competition.metrics import auc, f1
from oof.blend import BestSingle, ConvexBlend, Greedy, HardVote, LogitMean, Mean, RankMean, SingleLearner
from oof.combiner import Combiner
from oof.crossfit import Fitted, cross_fit, cross_fitted_scores, fit_final
from oof.frame import PredictionFrame
from oof.logistic import LanguageLogistic, LogisticStacker
from oof.mix import TunedBlend
from oof.simulate import simulate
from oof.stack import LightGBMStacker
from oof.threshold import best_threshold

SMALL = simulate(1000, 3, 0, language_quality=True, correlation=0.3, n_folds=4)
SMALL_BLEND = TunedBlend(n_trials=4, stack=LightGBMStacker(max_rounds=3))
COMBINERS: list[Combiner] = [
    BestSingle(),
    SingleLearner("learner_1"),
    Mean(),
    RankMean(),
    LogitMean(),
    HardVote(),
    ConvexBlend(),
    ConvexBlend(space="probability"),
    Greedy(n_rounds=5, n_bags=2),
    SMALL_BLEND,
    LogisticStacker(),
    LanguageLogistic(),
    LightGBMStacker(max_rounds=8),
]
NAMES = [f"{combiner.kind}-{i}" for i, combiner in enumerate(COMBINERS)]


@dataclass(frozen=True)
class FittedPeeker:
    """Knows the labels of its training rows by heart, and looks for labels in what it is to score."""

    known: dict[int, int]
    kind: ClassVar[str] = "peeker"

    def predict(self, frame: PredictionFrame) -> np.ndarray:
        known = dict(self.known)
        if "label" in frame.rows:
            known |= dict(zip(frame.rows["id"], frame.rows["label"], strict=True))
        honest = Mean().fit(frame).predict(frame)
        return np.array([known.get(id_, score) for id_, score in zip(frame.rows["id"], honest, strict=True)])

    def to_folder(self, folder: Path) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Peeker:
    name: str = "peeker"
    kind: ClassVar[str] = "peeker"

    def fit(self, frame: PredictionFrame) -> FittedPeeker:
        return FittedPeeker(dict(zip(frame.rows["id"].tolist(), frame.labels.tolist(), strict=True)))


@dataclass
class Recorder:
    """Writes down which folds every fit saw."""

    seen: list[tuple[int, ...]]
    name: str = "recorder"
    kind: ClassVar[str] = "recorder"

    def fit(self, frame: PredictionFrame) -> object:
        self.seen.append(tuple(np.unique(frame.fold).tolist()))
        return Mean().fit(frame)


def test_a_combiner_that_memorises_labels_gains_nothing() -> None:
    peeker, honest = cross_fit(Peeker(), SMALL.oof), cross_fit(Mean(), SMALL.oof)
    assert np.array_equal(peeker.scores, honest.scores)
    assert peeker.thresholds == honest.thresholds
    assert np.array_equal(peeker.decisions, honest.decisions)
    assert fit_final(Peeker(), SMALL.oof).threshold == fit_final(Mean(), SMALL.oof).threshold


def test_a_memorising_combiner_would_have_cheated_an_in_sample_threshold() -> None:
    """The peeker in the test above can fail it: in sample it is perfect."""
    oof = SMALL.oof
    assert best_threshold(oof.labels, Peeker().fit(oof).predict(oof)).f1 == 1.0


def test_labels_of_a_fold_have_no_part_in_its_decisions() -> None:
    oof = SMALL.oof
    flipped_rows = oof.rows.assign(label=oof.rows["label"].where(oof.fold != 2, 1 - oof.rows["label"]))
    flipped = replace(oof, rows=flipped_rows)
    for combiner in (
        Greedy(n_rounds=3),
        LogisticStacker(),
        LanguageLogistic(),
        LightGBMStacker(max_rounds=3),
        SMALL_BLEND,
    ):
        before, after = cross_fit(combiner, oof), cross_fit(combiner, flipped)
        assert np.array_equal(before.scores[oof.fold == 2], after.scores[oof.fold == 2])
        assert before.thresholds[2] == after.thresholds[2]
    assert not np.array_equal(before.scores[oof.fold != 2], after.scores[oof.fold != 2])


def test_fits_see_all_but_one_and_all_but_two_folds_once() -> None:
    recorder = Recorder([])
    cross_fit(recorder, SMALL.oof)
    assert sorted(seen for seen in recorder.seen if len(seen) == 3) == [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)]
    assert sorted(seen for seen in recorder.seen if len(seen) == 2) == [
        (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3),
    ]  # fmt: skip


def test_decisions_are_the_scores_cut_at_the_fold_threshold() -> None:
    oof = SMALL.oof
    fitted = cross_fit(ConvexBlend(), oof)
    cuts = np.array([fitted.thresholds[int(k)] for k in oof.fold])
    assert np.array_equal(fitted.decisions, (fitted.scores >= cuts).astype(np.int8))
    assert set(fitted.thresholds) == {0, 1, 2, 3}


@pytest.mark.parametrize("combiner", COMBINERS, ids=NAMES)
def test_reordering_rows_changes_nothing(combiner: Combiner) -> None:
    order = np.random.default_rng(0).permutation(SMALL.oof.n_rows)
    plain, shuffled = fit_final(combiner, SMALL.oof), fit_final(combiner, SMALL.oof.take(order))
    assert plain.threshold == shuffled.threshold
    assert np.array_equal(plain.predict(SMALL.fresh), shuffled.predict(SMALL.fresh))
    scores = cross_fitted_scores(combiner, SMALL.oof)
    assert np.array_equal(scores[order], cross_fitted_scores(combiner, SMALL.oof.take(order)))


@pytest.mark.parametrize("combiner", COMBINERS, ids=NAMES)
def test_saved_and_loaded_it_gives_the_same_scores(combiner: Combiner, tmp_path: Path) -> None:
    fitted = fit_final(combiner, SMALL.oof)
    fitted.to_folder(tmp_path / "ensemble")
    again = Fitted.from_folder(tmp_path / "ensemble")
    assert again.threshold == fitted.threshold
    assert np.array_equal(again.predict(SMALL.fresh), fitted.predict(SMALL.fresh))
    assert np.array_equal(again.decide(SMALL.fresh), fitted.decide(SMALL.fresh))


def test_the_order_of_learners_in_a_frame_does_not_matter() -> None:
    turned = SMALL.fresh.with_learners(SMALL.fresh.learners[::-1])
    for combiner in (ConvexBlend(), LightGBMStacker(max_rounds=20)):
        fitted = fit_final(combiner, SMALL.oof)
        assert np.array_equal(fitted.predict(turned), fitted.predict(SMALL.fresh))


def test_cross_fitted_scores_given_save_the_fits_and_change_nothing() -> None:
    fitted = cross_fit(LogisticStacker(), SMALL.oof)
    assert fit_final(LogisticStacker(), SMALL.oof, cross_fitted=fitted).threshold == (
        fit_final(LogisticStacker(), SMALL.oof).threshold
    )
    with pytest.raises(CompetitionError, match="belong to something else"):
        fit_final(Mean(), SMALL.oof, cross_fitted=fitted)


def test_a_frame_with_one_learner_works() -> None:
    oof = SMALL.oof.with_learners(["learner_2"])
    expected = cross_fit(SingleLearner("learner_2"), SMALL.oof)
    for combiner in (Mean(), ConvexBlend(), Greedy(n_rounds=3)):
        assert cross_fit(combiner, oof).scores == pytest.approx(expected.scores, abs=1e-5)  # clipped logits
    for combiner in (LogisticStacker(), SMALL_BLEND, LightGBMStacker(max_rounds=2)):
        assert cross_fit(combiner, oof).decisions.shape == (oof.n_rows,)


def test_fewer_than_three_folds_are_refused() -> None:
    with pytest.raises(CompetitionError, match="too few folds"):
        cross_fit(Mean(), SMALL.oof.take(SMALL.oof.fold < 2))


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    fit_final(Mean(), SMALL.oof).to_folder(tmp_path)
    (tmp_path / "combiner.json").write_text('{"kind": "oracle"}', encoding="utf-8")
    with pytest.raises(CompetitionError, match="kind 'oracle'"):
        Fitted.from_folder(tmp_path)


@pytest.mark.parametrize("combiner", [Mean(), Greedy(n_bags=1, n_rounds=8), LogisticStacker()], ids=lambda c: c.name)
def test_the_nested_estimate_is_that_on_fresh_rows(combiner: Combiner) -> None:
    """Tolerance .008: two standard errors of an F1 on 12,000 rows."""
    world = simulate(12_000, 4, 7, language_quality=True, correlation=0.3, n_fresh=60_000)
    nested = cross_fit(combiner, world.oof)
    fresh = fit_final(combiner, world.oof, cross_fitted=nested).decide(world.fresh)
    assert f1(world.oof.labels, nested.decisions) == pytest.approx(f1(world.fresh.labels, fresh), abs=0.008)


@pytest.mark.parametrize(
    "combiner", [Greedy(n_bags=1, n_rounds=5), SMALL_BLEND, LogisticStacker(), LightGBMStacker()],
    ids=lambda c: c.name,
)  # fmt: skip
def test_noise_stays_at_chance(combiner: Combiner) -> None:
    """Six useless learners and no texts: F1 is that of everything positive, AUC a half (tolerance .03)."""
    noise = simulate(3000, 0, 3, language_quality=False, correlation=0.0, n_folds=4, noise_learners=6).oof
    noise = replace(noise, rows=noise.rows.drop(columns=["query", "target"]))
    nested = cross_fit(combiner, noise)
    everything_positive = f1(noise.labels, np.ones(noise.n_rows))
    assert everything_positive - 0.03 < f1(noise.labels, nested.decisions) < everything_positive + 0.003
    assert auc(noise.labels, nested.scores) == pytest.approx(0.5, abs=0.03)
