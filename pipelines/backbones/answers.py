"""The two answers of a language model: which tokens they are, and their logits in full precision."""

from typing import Any

from competition.errors import CompetitionError, Fault
from pipelines.config import CausalLoraRecipe
from pipelines.encoding import render
from pipelines.sections import PROMPT_FIELDS


def answer_labels(recipe: CausalLoraRecipe, tokenizer: Any) -> tuple[int, int]:
    """The tokens that stand for label 0 and label 1, see `answer_tokens`."""
    yes, no = answer_tokens(tokenizer, template=recipe.text.template, answers=recipe.text.answers)
    return no, yes


def answer_tokens(tokenizer: Any, *, template: str, answers: tuple[str, str]) -> tuple[int, int]:
    """The ids of the tokens that the two answers are after the prompt and a blank.

    Raises
    ------
    CompetitionError
        An answer is not exactly one token, is no known token, or both are the same token.
    """
    prompt, _ = render(template, dict.fromkeys(PROMPT_FIELDS, "x"))
    before = tokenizer(prompt)["input_ids"]
    found, faults = [], []
    for answer in answers:
        ids = tokenizer(f"{prompt} {answer}")["input_ids"]
        new = ids[len(before) :]
        if ids[: len(before)] != before or len(new) != 1 or new[0] == tokenizer.unk_token_id:
            tokens = tokenizer.convert_ids_to_tokens(new)
            faults.append(Fault("text.answers", f"{answer!r} is {tokens} after the prompt", "one known token"))
        found += new[:1]
    if not faults and found[0] == found[1]:
        faults.append(Fault("text.answers", "both answers are the same token", "two different tokens"))
    if faults:
        raise CompetitionError(
            "the answers cannot be told apart by one token", faults=faults, advice="change text.answers"
        )
    return found[0], found[1]


def with_answer_head(model: Any, labels: tuple[int, int]) -> Any:
    """The language model whose output layer is the rows of two tokens alone: ``(..., 2)`` logits, in fp32.

    In bf16 a logit near 20 has steps of .125: 1,500 rows then shared 39 scores. And the product with a vocabulary of
    262,144 is saved. The rows are frozen, as the output layer is behind adapters.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    output = model.get_output_embeddings()
    places = list(labels)

    class AnswerHead(nn.Module):
        rows: torch.Tensor
        bias: torch.Tensor | None

        def __init__(self) -> None:
            super().__init__()
            bias = getattr(output, "bias", None)
            self.register_buffer("rows", output.weight.detach()[places].float(), persistent=False)
            self.register_buffer("bias", None if bias is None else bias.detach()[places].float(), persistent=False)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            with torch.autocast(hidden.device.type, enabled=False):
                return functional.linear(hidden.float(), self.rows, self.bias)

    model.set_output_embeddings(AnswerHead())
    return model
