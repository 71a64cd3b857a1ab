"""Combiners are made for what the frames are like."""

import pytest
from test_oof_paths import make_frame

from oof.frame import PredictionFrame
from oof.mix import TunedBlend
from oof.stack import LightGBMStacker
from pipelines.ensembling import make_combiner


@pytest.mark.parametrize("name", ["stack", "blend"])
def test_trees_look_along_paths_where_there_are_any(name: str) -> None:
    paths = make_frame(200, seed=0)
    titles = PredictionFrame(paths.rows.assign(target="title, red"), paths.scores, paths.learners)
    found = {}
    for kind, frame in (("paths", paths), ("titles", titles)):
        combiner = make_combiner(name, {"train": frame}, seed=0)
        stack = combiner.stack if isinstance(combiner, TunedBlend) else combiner
        assert isinstance(stack, LightGBMStacker)
        found[kind] = stack.paths
    assert found == {"paths": True, "titles": False}
