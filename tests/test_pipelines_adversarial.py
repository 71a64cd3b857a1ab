"""Adversarial steps have the promised size and direction, and leave nothing behind."""

from typing import Any

import pytest
import torch
from torch import nn

from pipelines.backbones.adversarial import EmbeddingAttack, WeightAttack

WORDS = torch.tensor([[1, 2, 3], [4, 5, 5]])


class Reader(nn.Module):
    """Words to one number per row, through a layer that is not linear."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.words, self.out = nn.Embedding(9, 4), nn.Linear(4, 1)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def forward(self) -> Any:
        return torch.tanh(self.out(self.words(WORDS).mean(1))).sum()


@pytest.mark.parametrize("frozen", [False, True])
def test_embeddings_move_by_the_given_norm_along_their_gradient(frozen: bool) -> None:
    model = Reader()
    model.words.weight.requires_grad_(not frozen)
    clean = model.words(WORDS).detach()
    gradient = clean.clone().requires_grad_()
    torch.tanh(model.out(gradient.mean(1))).sum().backward()  # type: ignore[no-untyped-call]
    assert gradient.grad is not None
    attack = EmbeddingAttack(model, 0.5)
    with attack.watch():
        loss = model()
        loss.backward()
    with attack.apply():
        worse = model()
    with attack.watch():
        model().backward()
    with attack.apply():
        step = model.words(WORDS).detach() - clean
    torch.testing.assert_close(step.flatten(1).norm(dim=1), torch.full((2,), 0.5))
    cosine = nn.functional.cosine_similarity(step.flatten(1), gradient.grad.flatten(1))
    torch.testing.assert_close(cosine, torch.ones(2))
    assert worse > loss
    torch.testing.assert_close(model.words(WORDS), clean, rtol=0, atol=0)
    assert not model.words._forward_hooks


def test_without_a_gradient_no_embedding_moves() -> None:
    model = Reader()
    clean = model.words(WORDS)
    attack = EmbeddingAttack(model, 0.5)
    with attack.watch():
        (model() * 0).backward()
    with attack.apply():
        torch.testing.assert_close(model.words(WORDS), clean)


def test_every_call_of_the_layer_has_its_own_step() -> None:
    model = Reader()
    calls = [WORDS, WORDS.flip(0)[:, :2]]
    clean = [model.words(words).detach() for words in calls]
    attack = EmbeddingAttack(model, 0.5)
    with attack.watch():
        first, second = (torch.tanh(model.out(model.words(words).mean(1))) for words in calls)
        (first * torch.tensor([[1.0], [-1.0]]) + second).sum().backward()
    with attack.apply():
        steps = [model.words(words).detach() - before for words, before in zip(calls, clean, strict=True)]
    cosine = nn.functional.cosine_similarity(steps[0][:, 0], steps[1][:, 0])
    torch.testing.assert_close(cosine, torch.tensor([1.0, -1.0]))
    for step in steps:
        torch.testing.assert_close(step.flatten(1).norm(dim=1), torch.full((2,), 0.5))


def test_weights_move_by_their_share_along_the_gradient_and_come_back() -> None:
    model = Reader()
    model.words.weight.requires_grad_(False)
    loss = model()
    loss.backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with WeightAttack(model, 0.1).apply():
        step = model.out.weight.detach() - before["out.weight"]
        worse = model()
        for name in ("words.weight", "out.bias"):
            torch.testing.assert_close(model.get_parameter(name).detach(), before[name], rtol=0, atol=0)
    torch.testing.assert_close(step.norm(), 0.1 * before["out.weight"].norm())
    assert model.out.weight.grad is not None
    torch.testing.assert_close(step / step.norm(), model.out.weight.grad / model.out.weight.grad.norm())
    assert worse > loss
    torch.testing.assert_close(model.out.weight.detach(), before["out.weight"], rtol=0, atol=0)


def test_weights_come_back_when_the_step_fails() -> None:
    model = Reader()
    model().backward()
    before = model.out.weight.detach().clone()
    with pytest.raises(RuntimeError, match="killed"), WeightAttack(model, 0.1).apply():
        raise RuntimeError("killed")
    torch.testing.assert_close(model.out.weight.detach(), before, rtol=0, atol=0)
