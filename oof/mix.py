"""The tuned blend: simple blends and stackers, mixed by a structure that Optuna tunes and that must earn its keep."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.errors import CompetitionError, Fault
from competition.progress import progress
from oof.blend import ConvexBlend, Greedy, HardVotes, LogitMean, Recalibrated, WeightedMean
from oof.combiner import NOTHING, Combiner, Fits, FittedCombiner, Folds, Refits, members
from oof.frame import PredictionFrame, to_logits
from oof.journal import open_journal
from oof.logistic import FittedLogistic, LanguageLogistic, LogisticStacker
from oof.stack import FittedLightGBM, Level2, LightGBMStacker
from oof.state import MAKE_AGAIN, read_by_kind, read_state, write_state
from oof.weights import convex_weights, sigmoid

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]

MEMBER_READERS: dict[str, Callable[[Path], FittedCombiner]] = {
    WeightedMean.kind: WeightedMean.from_folder,
    HardVotes.kind: HardVotes.from_folder,
    FittedLogistic.kind: FittedLogistic.from_folder,
    FittedLightGBM.kind: FittedLightGBM.from_folder,
}
SEARCH_ROWS = 200_000  # a trial looks at no more rows; what it finds is compared on all of them
MEMBERS = ("mean", "convex", "greedy", "logistic", "by-language", "trees", "small-trees")
SIMPLE = ("mean", "convex", "logistic", "by-language", "small-trees", "trees")  # simplest first
LEAST_SHARE = 0.01
SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class FittedMix:
    """The weighted mean of the log-odds of several fitted combiners.

    Attributes
    ----------
    members
        Name -> combiner; those without a share are not there.
    shares
        Their weights, in the same order, 0 or more, summing to 1.
    """

    members: Mapping[str, FittedCombiner]
    shares: tuple[float, ...]
    kind: ClassVar[str] = "mix"

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.members):
            fault = Fault("shares", f"{len(self.shares)}", f"{len(self.members)}, one a member")
            raise CompetitionError("this is no mixture", faults=[fault])
        if not (min(self.shares, default=-1.0) >= 0 and abs(sum(self.shares) - 1) < SUM_TOLERANCE):
            raise CompetitionError("this is no mixture", faults=[Fault("shares", "not 0 or more, summing to 1")])

    def predict(self, frame: PredictionFrame) -> Floats:
        """The combined score of every row, ``(n_rows,)`` in [0, 1]."""
        scores = [member.predict(frame) for member in self.members.values()]
        return mixed(scores, self.shares)

    def to_folder(self, folder: Path) -> None:
        """Write `combiner.json`, and the members into folders of their names."""
        for name, member in self.members.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            member.to_folder(folder / name)
        write_state(folder, self.kind, {"members": list(self.members), "shares": list(self.shares)})

    @classmethod
    def from_folder(cls, folder: Path) -> "FittedMix":
        """What `to_folder` wrote."""
        state = read_state(folder, {"members": list[str], "shares": list[float]})
        if unknown := [name for name in state["members"] if name not in MEMBERS]:
            faults = [Fault(str(folder), f"a member {name[:40]!r}", f"one of {', '.join(MEMBERS)}") for name in unknown]
            raise CompetitionError("this mixture cannot be read", faults=faults, advice=MAKE_AGAIN)
        found = {name: read_member(folder / name) for name in state["members"]}
        return cls(found, tuple(state["shares"]))


def read_member(folder: Path) -> FittedCombiner:
    """The fitted combiner in `folder`, one that is no mixture itself, by the `kind` in its `combiner.json`."""
    return read_by_kind(folder, MEMBER_READERS)


def mixed(scores: list[Floats], shares: tuple[float, ...]) -> Floats:
    """Scores whose log-odds are the weighted mean of those given; a single one stays as it is.

    Examples
    --------
    >>> mixed([np.array([0.2]), np.array([0.8])], (0.5, 0.5)).round(6).tolist()
    [0.5]
    """
    if len(scores) == 1:
        return scores[0]
    return sigmoid(np.sum([share * to_logits(each) for share, each in zip(shares, scores, strict=True)], axis=0))


@dataclass(frozen=True)
class Structure:
    """What Optuna tunes: how the members are mixed. Every field is in [0, 1].

    Attributes
    ----------
    shrink
        The share of the plain mean of all learners.
    trees
        Of the rest, the share of the LightGBM stacker.
    small
        Of that, the share of small trees.
    language
        Of what is left, the share of the logistic stacker that tells languages apart.
    weighted
        Of what is left, the share of the blends (the rest is the plain logistic stacker's).
    greedy
        Of the blends, the share of greedy selection; the rest is the convex blend's.
    """

    shrink: float
    trees: float
    small: float
    language: float
    weighted: float
    greedy: float

    def shares(self) -> Floats:
        """The weights of `MEMBERS`, ``(n_members,)``, summing to 1; one below `LEAST_SHARE` is none.

        Examples
        --------
        >>> Structure(0.5, 0.5, 0.0, 0.0, 0.0, 0.0).shares().tolist()
        [0.5, 0.0, 0.0, 0.25, 0.0, 0.25, 0.0]
        """
        rest = 1 - self.shrink
        linear = rest * (1 - self.trees)
        apart = linear * self.language
        blends = (linear - apart) * self.weighted
        logistic = linear - apart - blends
        trees = rest * self.trees
        weights = [self.shrink, blends * (1 - self.greedy), blends * self.greedy, logistic, apart]
        weights += [trees * (1 - self.small), trees * self.small]
        kept = np.where(np.array(weights) >= LEAST_SHARE, weights, 0.0)
        return np.asarray(kept / kept.sum())

    @classmethod
    def of(cls, shares: Mapping[str, float]) -> "Structure":
        """The structure with these weights; members that are not named have none."""
        mean, convex, greedy, logistic, apart, large, small = (shares.get(name, 0.0) for name in MEMBERS)
        linear = convex + greedy + logistic + apart
        return cls(
            shrink=_share(mean, linear + large + small),
            trees=_share(large + small, linear),
            small=_share(small, large),
            language=_share(apart, convex + greedy + logistic),
            weighted=_share(convex + greedy, logistic),
            greedy=_share(greedy, convex),
        )


def _share(part: float, rest: float) -> float:
    return min(1.0, part / (part + rest)) if part > 0 else 0.0


@dataclass(frozen=True)
class TunedBlend:
    """The default: simple blends, logistic and LightGBM stackers, mixed as Optuna finds best, or the simplest as good.

    The mixture is of log-odds. Its structure is chosen by the log-loss of scores that are out of fold within the frame
    itself. The search starts from the members alone and from the mixture with the lowest log-loss of all convex ones
    (the super learner). Log-loss tells structures apart that F1, which only sees rows near the cut, cannot.

    Of (mean, convex blend, logistic stacker, logistic per language, LightGBM, best structure) the first is taken whose
    loss lies within one standard error (paired, over groups) of the best: a search always finds something, mostly luck.

    Sources: van der Laan, Polley, Hubbard 2007, "Super learner"; Breiman et al. 1984 (the rule of one standard error).

    Attributes
    ----------
    n_trials
        Of the search.
    stack
        The LightGBM stacker among the members; that of small trees is the same but for its `num_leaves`.
    journal
        A file that remembers trials, so that a search that was cut off goes on where it was; None remembers nothing.
    """

    n_trials: int = 60
    seed: int = 0
    stack: LightGBMStacker = field(default_factory=LightGBMStacker)
    small_leaves: int = 5
    journal: Path | None = field(default=None, repr=False, compare=False)
    name: str = "blend"
    kind: ClassVar[str] = "blend"

    def members(self) -> dict[str, Combiner]:
        """Name -> combiner, in the order of `MEMBERS`."""
        return {
            "mean": Recalibrated(LogitMean()),
            "convex": Recalibrated(ConvexBlend()),
            "greedy": Recalibrated(Greedy(n_bags=1, seed=self.seed)),
            "logistic": LogisticStacker(),
            "by-language": LanguageLogistic(),
            "trees": self.stack,
            "small-trees": replace(self.stack, num_leaves=self.small_leaves),
        }

    def fit(self, frame: PredictionFrame) -> FittedMix:
        """The mixture, its structure chosen and its members fitted on all rows of the frame."""
        return self.over(frame).fit_without(NOTHING)

    def over(self, frame: PredictionFrame) -> "MixFits":
        """Its fits without any folds of the frame."""
        return MixFits(self, frame)


class MixFits:
    """`TunedBlend` over one frame, without any level-2 folds; members share theirs."""

    def __init__(self, blend: TunedBlend, frame: PredictionFrame) -> None:
        self._blend, self._frame = blend, frame
        level2 = Level2.of(frame, excluded=blend.stack.excluded, paths=blend.stack.paths)
        self.members = {name: _fits(each, frame, level2) for name, each in blend.members().items()}
        self.structure = cache(self._structure)

    def fit_without(self, folds: Folds) -> FittedMix:
        """The mixture of members fitted without these folds, by the structure chosen without them."""
        found = self._shares(folds)
        return FittedMix({name: self.members[name].fit_without(folds) for name in found}, tuple(found.values()))

    def held_out(self, folds: Folds) -> Floats:
        """See `Fits.held_out`."""
        found = self._shares(folds)
        return mixed([self.members[name].held_out(folds) for name in found], tuple(found.values()))

    def inner(self, folds: Folds) -> Floats:
        """See `Fits.inner`; the structure's few numbers were chosen on these very scores, nothing else was."""
        found = self._shares(folds)
        return mixed([self.members[name].inner(folds) for name in found], tuple(found.values()))

    def _shares(self, folds: Folds) -> dict[str, float]:
        """Member -> its share, of those that have one."""
        shares = dict(zip(MEMBERS, self.structure(folds).shares().tolist(), strict=True))
        return {name: share for name, share in shares.items() if share > 0}

    def _structure(self, folds: Folds) -> Structure:
        rows = self._frame.take(~members(self._frame, folds))
        if len(np.unique(rows.level2_fold)) < 2:
            return Structure.of({"mean": 1.0})
        logits = np.stack([to_logits(self.members[name].inner(folds)) for name in MEMBERS])
        trials = Trials(rows.labels, logits, rows.group)
        best = trials.search(
            self._blend.n_trials,
            seed=self._blend.seed,
            storage=_storage(self._blend.journal),
            name=_study_name(rows, logits),
        )
        return trials.simplest_as_good_as(best)


def _fits(member: Combiner, frame: PredictionFrame, level2: Level2) -> Fits:
    """The fits of a member, which share what stackers of one frame have in common."""
    if isinstance(member, LightGBMStacker):
        return member.over(frame, shared=level2)
    if isinstance(member, LanguageLogistic):
        return member.over(frame, shared=level2.offsets)
    return Refits.of(member, frame)


@dataclass(frozen=True, eq=False)
class Trials:
    """The out-of-fold log-odds of the members, ``(n_members, n_rows)``, on which structures are compared."""

    labels: Binary
    logits: Floats
    group: npt.NDArray[np.generic]

    def search(
        self, n_trials: int, *, seed: int, storage: "optuna.storages.BaseStorage | None", name: str
    ) -> Structure:
        """The structure with the lowest log-loss that Optuna finds from the members alone and their convex mixture.

        Every trial has a sampler of its own seed, so that a search that goes on is the one that was not cut off.
        """
        import optuna

        labels, logits = self._sample(seed)

        def objective(trial: optuna.Trial) -> float:
            shares = {key: trial.suggest_float(key, 0.0, 1.0) for key in Structure.__dataclass_fields__}
            return _loss(labels, Structure(**shares).shares() @ logits)

        convex = convex_weights(labels, logits.T, loss="logit").tolist()
        first = [Structure.of(dict(zip(MEMBERS, convex, strict=True)))]
        first += [Structure.of({member: 1.0}) for member in SIMPLE]
        with _quiet_optuna():
            study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
            todo = range(_n_finished(study), max(n_trials, 1))
            with progress("blend trials", total=len(todo)) as advance:
                for number in todo:
                    if number < len(first):  # not enqueued: a kill would take it out of the queue and lose it
                        study.add_trial(_trial_of(first[number], labels, logits))
                    else:
                        study.sampler = optuna.samplers.TPESampler(seed=seed + number, n_startup_trials=len(first))
                        study.optimize(objective, n_trials=1)
                    advance(1)
        return Structure(**study.best_params)

    def simplest_as_good_as(self, best: Structure) -> Structure:
        """The first of the `SIMPLE` members alone whose loss is within one standard error of the best, else that."""
        candidates = [Structure.of({member: 1.0}) for member in SIMPLE] + [best]
        losses = [_row_losses(self.labels, each.shares() @ self.logits) for each in candidates]
        lowest = min(range(len(losses)), key=lambda i: losses[i].mean())
        for candidate, loss in zip(candidates, losses, strict=True):
            if loss.mean() - losses[lowest].mean() <= _standard_error(loss - losses[lowest], self.group):
                return candidate
        return candidates[lowest]

    def _sample(self, seed: int) -> tuple[Binary, Floats]:
        """Labels and log-odds of at most `SEARCH_ROWS` rows."""
        if len(self.labels) <= SEARCH_ROWS:
            return self.labels, self.logits
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.labels), SEARCH_ROWS, replace=False))
        return self.labels[chosen], np.ascontiguousarray(self.logits[:, chosen])


def _loss(labels: Binary, logits: Floats) -> float:
    return float(_row_losses(labels, logits).mean())


def _row_losses(labels: Binary, logits: Floats) -> Floats:
    return np.asarray(np.logaddexp(0.0, logits) - labels * logits, dtype=np.float64)


def _standard_error(values: Floats, group: npt.NDArray[np.generic]) -> float:
    """Of the mean of values whose groups are drawn as wholes."""
    codes, _ = pd.factorize(group)
    totals = np.bincount(codes, weights=values - values.mean())
    return float(np.sqrt((totals**2).sum()) / len(values))


def _trial_of(structure: "Structure", labels: Binary, logits: Floats) -> "optuna.trial.FrozenTrial":
    """The finished trial of a structure that is not drawn."""
    import optuna

    shares = asdict(structure)
    distributions = {key: optuna.distributions.FloatDistribution(0.0, 1.0) for key in shares}
    loss = _loss(labels, structure.shares() @ logits)
    return optuna.trial.create_trial(params=shares, distributions=distributions, value=loss)


def _n_finished(study: "optuna.Study") -> int:
    import optuna

    return len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))


def _storage(journal: Path | None) -> "optuna.storages.BaseStorage | None":
    """Where trials are kept; a journal, unlike a database, bears a kill at any moment. A damaged one begins anew."""
    if journal is None:
        return None
    try:
        return open_journal(journal)
    except (ValueError, KeyError) as error:
        log.warning("%s is damaged and begins anew: %s", journal, error)
        journal.unlink()
        return open_journal(journal)


def _study_name(rows: PredictionFrame, logits: Floats) -> str:
    """A digest of what a search looks at: trials of anything else are not gone on with."""
    found = hashlib.sha256(rows.labels.tobytes())
    found.update(np.ascontiguousarray(logits).tobytes())
    return found.hexdigest()[:16]


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna logs every trial to stderr by itself; put its verbosity back afterwards."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
