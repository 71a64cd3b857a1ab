"""Scoring on CPUs by OpenVINO instead of torch: the fitted network, converted in memory."""

import logging
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from competition.errors import CompetitionError
from pipelines.backbones.scoring import Logits

log = logging.getLogger(__name__)


def openvino_logits(model: Any, names: Iterable[str], *, logits: Logits, half: bool, threads: int) -> Logits:
    """What `logits` computes, computed by OpenVINO; with `half` matrices are multiplied in bf16 where the CPU can.

    Parameters
    ----------
    model
        In evaluation mode, on the CPU. It is converted once; weights that change later are not seen.
    names
        The arrays of a batch; each is ``(n_rows, longest)``, and any size will do.

    Raises
    ------
    CompetitionError
        openvino is not installed.
    """
    if find_spec("openvino") is None:
        raise CompetitionError(
            'training.scoring = "openvino" needs openvino, which is not installed',
            advice="pip install 'relstack[openvino]', or leave training.scoring out",
        )
    import torch

    order = tuple(names)
    request = _compiled(model, order, logits, half, threads)

    def found(_: Any, batch: Mapping[str, Any]) -> Any:
        return torch.from_numpy(np.array(request.infer([batch[name].numpy() for name in order])[0]))

    return found


@lru_cache(maxsize=1)
def _compiled(model: Any, names: tuple[str, ...], logits: Logits, half: bool, threads: int) -> Any:
    import openvino
    import torch
    from torch import nn

    class Positional(nn.Module):
        """The network with the batch's arrays as plain arguments, in the order of their names."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *arrays: Any) -> Any:
            return logits(self.model, dict(zip(names, arrays, strict=True)))

    started = time.perf_counter()
    example = tuple(torch.full((2, 8), int(name == "attention_mask")) for name in names)
    with torch.no_grad():
        network = openvino.convert_model(Positional().eval(), example_input=example)
    settings = {"INFERENCE_PRECISION_HINT": "bf16" if half else "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(network, "CPU", {**settings, "PERFORMANCE_HINT": "LATENCY"})
    log.info("converted the network to OpenVINO in %.1f s", time.perf_counter() - started)
    return compiled.create_infer_request()
