"""Networks in several processes: how FSDP2 shares one out among them, and how it becomes whole again."""

from collections.abc import Mapping
from typing import Any

from pipelines.sections import TrainingSection


def n_processes() -> int:
    """How many processes work together, 1 without torchrun."""
    from torch import distributed

    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first_process() -> bool:
    """Whether this process is the one that writes."""
    from torch import distributed

    return not distributed.is_initialized() or distributed.get_rank() == 0


def fsdp_settings(model: Any, training: TrainingSection) -> dict[str, Any]:
    """What `TrainingArguments` needs to share `model` out layer by layer; nothing for one process or with DDP."""
    if training.sharding != "fsdp" or n_processes() == 1:
        return {}
    config = {
        "version": 2,
        "transformer_layer_cls_to_wrap": layer_classes(model),
        "state_dict_type": "SHARDED_STATE_DICT",  # checkpoints: every process writes what it has
    }
    return {"fsdp": True, "fsdp_config": config}


def share_out_on_cpu(accelerator: Any, settings: Mapping[str, Any]) -> None:
    """Let accelerate share a network out among processes on CPUs: by itself it says nothing and copies the network.

    It looks only at the kind of the devices there; all that follows is the same code as on GPUs.
    """
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin(**settings)
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    accelerator.state.fsdp_plugin = plugin
    accelerator.state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def layer_classes(model: Any) -> list[str]:
    """Names of the classes of the network's layers, as transformers declares them in `_no_split_modules`.

    Without those around the input embeddings (``BertEmbeddings``): accelerate shares these out by themselves.
    """
    declared: set[str] = set()
    for module in model.modules():
        declared |= set(getattr(module, "_no_split_modules", None) or ())
    embeddings = model.get_input_embeddings()
    layers = {type(module).__name__ for module in model.modules() if embeddings not in set(module.modules())}
    return sorted(declared & layers)


def is_sharded(model: Any) -> bool:
    """Whether every process holds only a share of the weights."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def idle_passes(model: Any, n_batches: int) -> int:
    """How often a process with `n_batches` must pass the network in vain: its weights are fetched by all together."""
    if not is_sharded(model):
        return 0
    import torch

    most = torch.tensor(n_batches, device=next(model.parameters()).device)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    return int(most) - n_batches


def whole_weights(model: Any) -> dict[str, Any] | None:
    """The weights of a sharded network by name, on the CPU, of the trained ones if others are frozen.

    All processes must call this; only the first one gets them, the others an empty dictionary. None for a network
    that is whole.
    """
    if not is_sharded(model):
        return None
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    frozen = any(not p.requires_grad for p in model.parameters())
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=frozen)
    return get_model_state_dict(model, options=options)


def below(weights: Mapping[str, Any] | None, prefix: str) -> dict[str, Any] | None:
    """The weights whose names begin with `prefix`, named without it.

    Examples
    --------
    >>> below({"head.bias": 0, "encoder.bias": 1}, "head.")
    {'bias': 0}
    """
    if weights is None:
        return None
    return {name.removeprefix(prefix): values for name, values in weights.items() if name.startswith(prefix)}
