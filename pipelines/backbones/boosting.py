"""LightGBM heads: regularised for tens of thousands of rows and dense features, saved as LightGBM's own text."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from competition.progress import progress
from pipelines.targets import Targets

if TYPE_CHECKING:
    import lightgbm as lgb


@dataclass(frozen=True)
class Boosting:
    """Settings of a LightGBM head."""

    rounds: int
    leaves: int
    learning_rate: float
    min_rows_per_leaf: int
    seed: int
    threads: int

    def fit(self, features: np.ndarray, targets: Targets) -> "lgb.Booster":
        """Fitted trees; the same on any number of threads. `features` is float32 ``(n_rows, n_features)``."""
        import lightgbm as lgb

        places, labels, weights = targets.halves()

        parameters = {
            "objective": "binary",
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": min(self.min_rows_per_leaf, max(1, len(labels) // 20)),
            "feature_fraction": 0.5,
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "lambda_l2": 5.0,
            "num_threads": self.threads,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbose": -1,
        }
        rows = lgb.Dataset(features[places], labels, weight=weights)
        with progress(f"trees on {len(labels):,} rows", total=self.rounds) as advance:
            return lgb.train(parameters, rows, self.rounds, callbacks=[lambda env: advance(1)])


def probabilities(booster: "lgb.Booster", features: np.ndarray, *, threads: int) -> np.ndarray:
    """Probability of label 1, float32 ``(n_rows,)``."""
    if not len(features):
        return np.zeros(0, dtype=np.float32)
    return np.asarray(booster.predict(features, num_threads=threads)).astype(np.float32)
