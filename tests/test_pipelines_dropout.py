"""The faster dropout: the same distribution, gradients through the same mask, the same seed the same mask."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipelines.backbones.dropout import dropped, quick_dropout

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="it is for machines without a GPU")


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_p_is_dropped_and_the_rest_scaled_as_torch_does(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.ones(1_000_003, dtype=dtype)
    found, torchs = dropped(values, p), functional.dropout(values, p)
    assert float((found == 0).double().mean()) == pytest.approx(p, abs=4 * (p * (1 - p) / len(values)) ** 0.5)
    assert found.dtype == dtype
    assert set(found.unique().tolist()) == set(torchs.unique().tolist())


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    zero = dropped(torch.ones(400_000), 0.3).reshape(-1, 4) == 0
    for one in range(4):
        for other in range(one):
            both = (zero[:, one] & zero[:, other]).double().mean()
            assert float(both) == pytest.approx(0.09, abs=0.004)


def test_gradients_pass_where_values_pass() -> None:
    values = torch.ones(1000, requires_grad=True)
    found = dropped(values, 0.4)
    found.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, found.detach())


def test_inside_modules_and_functions_use_it_and_the_seed_repeats_it() -> None:
    values, module = torch.ones(64, 8), nn.Dropout(0.5)
    draws = []
    for _ in range(2):
        torch.manual_seed(5)
        with quick_dropout():
            draws.append((module(values), functional.dropout(values, p=0.5, training=True)))
    torch.manual_seed(5)
    expected = dropped(values, 0.5)
    torch.testing.assert_close(draws[0][0], expected)
    torch.testing.assert_close(draws[0], draws[1])
    torch.manual_seed(5)
    assert not torch.equal(module(values), expected), "outside torch draws its own"


def test_without_training_or_probability_nothing_changes() -> None:
    values = torch.randn(50)
    with quick_dropout():
        assert torch.equal(nn.Dropout(0.5).eval()(values), values)
        assert torch.equal(functional.dropout(values, p=0.0), values)
        assert not functional.dropout(values, p=1.0).any()


def test_activations_that_are_computed_again_are_dropped_as_before() -> None:
    from torch.utils.checkpoint import checkpoint

    values = torch.ones(500, requires_grad=True)
    with quick_dropout():
        found = checkpoint(lambda x: nn.Dropout(0.4)(x * x) * 2, values, use_reentrant=False)
        found.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, 2 * found.detach())
