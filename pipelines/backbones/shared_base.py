"""Adapters of several folds trained together on one frozen base: one pass for all, each row through its fold's own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from pipelines.backbones.packing import PLACES, ROW_STARTS
from pipelines.backbones.scoring import Logits


def add_adapters(model: Any, names: Sequence[str]) -> Any:
    """The peft model with an adapter (and head, if it has one) for each name, as its first adapter is configured."""
    (config,) = model.peft_config.values()
    for name in names:
        if name not in model.peft_config:
            model.add_adapter(name, config)
    _require_gradients(model, names)
    return model


class Routes:
    """Which adapter each row of the present batch belongs to.

    It stays until the next batch, as gradient checkpointing computes layers again while it goes backward.
    """

    def __init__(self, n_adapters: int, rank: int) -> None:
        self.n_adapters, self.rank = n_adapters, rank
        self.rows: Any = None
        self.columns: Any = None

    def route(self, batch: Mapping[str, Any], owners: Any) -> None:
        """From now on the rows of `batch` go through the adapters with these numbers, int64 ``(n_rows,)``."""
        import torch

        tokens = owners[:, None]
        if PLACES in batch:
            n_tokens = batch["input_ids"].shape[1]
            tokens = torch.repeat_interleave(owners, batch[ROW_STARTS].diff(), output_size=n_tokens)[None]
        columns = torch.arange(self.n_adapters, device=owners.device).repeat_interleave(self.rank)
        self.rows, self.columns = owners, tokens[..., None] == columns


@contextmanager
def trained_together(model: Any, names: Sequence[str]) -> Iterator[Routes]:
    """Inside, each row of a batch goes through the adapter that the routes say, in training too.

    peft itself mixes adapters in a batch in evaluation mode only. The adapters' matrices stand side by side here, and
    what a row would get from the others is set to 0: two products a layer, however many adapters there are. With the
    mean loss of all rows, every adapter's gradient is that of training it alone on its own rows, times its share of
    the rows. Adam does not mind the factor; clipping does, and takes the norm of all adapters together.

    Afterwards the model is again peft's own: `set_adapter` chooses one, `save_pretrained` writes each.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils.other import ModulesToSaveWrapper

    routes = Routes(len(names), model.peft_config[names[0]].r)
    replaced = []
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.forward = _adapted(module, names, routes)
        elif isinstance(module, ModulesToSaveWrapper):
            module.forward = _own_head(module, names, routes)
        else:
            continue
        replaced.append(module)
    _require_gradients(model, names)
    try:
        yield routes
    finally:
        for module in replaced:
            del module.forward


def in_equal_shares(logits: Logits, routes: Routes) -> Logits:
    """The logits of batches whose rows stand adapter by adapter, the same number for each."""
    import torch

    def of_all(model: Any, batch: Mapping[str, Any]) -> Any:
        ids = batch["input_ids"]
        n_rows = len(batch.get(PLACES, ids))
        routes.route(batch, torch.arange(n_rows, device=ids.device) * routes.n_adapters // n_rows)
        return logits(model, batch)

    return of_all


def _adapted(module: Any, names: Sequence[str], routes: Routes) -> Callable[[Any], Any]:
    import torch
    from torch.nn.functional import linear

    down, up = ([layers[name] for name in names] for layers in (module.lora_A, module.lora_B))
    scales, dropout = [module.scaling[name] for name in names], module.lora_dropout[names[0]]

    def forward(x: Any) -> Any:
        result = module.base_layer(x)
        first = torch.cat([layer.weight for layer in down])
        second = torch.cat([layer.weight * scale for layer, scale in zip(up, scales, strict=True)], dim=1)
        x = x if torch.is_autocast_enabled(x.device.type) else x.to(first.dtype)
        own = linear(dropout(x), first) * routes.columns
        return result + linear(own, second).to(result.dtype)

    return forward


def _own_head(module: Any, names: Sequence[str], routes: Routes) -> Callable[[Any], Any]:
    import torch

    def forward(x: Any) -> Any:
        found = torch.stack([module.modules_to_save[name](x) for name in names])
        return found[routes.rows, torch.arange(len(routes.rows), device=x.device)]

    return forward


def _require_gradients(model: Any, names: Sequence[str]) -> None:
    """Train the adapters and heads of these names; peft itself trains one head at a time."""
    owners = ("lora_A", "lora_B", "modules_to_save")
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        owned = any(one in owners and other in names for one, other in pairwise(parts))
        parameter.requires_grad_(owned)
