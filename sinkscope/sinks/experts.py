"""Which experts of a mixture of experts are chosen at one position, and at the others."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from sinkscope.errors import ModelError
from sinkscope.models.model import Model

CHOSEN = ("top_k_index", "router_indices")
"""The parameter of transformers' experts that has the chosen ones, by token."""
LAYER = re.compile(r"\blayers\.([0-9]+)\.")


def measure_experts(
    model: Model, passages: Sequence[list[int]], position: int = 0, batch_size: int = 8
) -> pd.DataFrame:
    """The share of tokens for which each expert is chosen, at `position` and at all others.

    Shares add up to the number of experts that a token has. Experts are read where the model hands its choice
    to them, so that biases and groups of a router count.

    Returns:
        Columns layer, expert, share (at the position), share_elsewhere.

    Raises:
        ModelError: the model has no experts, or not in transformers' form.
    """
    modules = find_experts(model)
    counts = {layer: torch.zeros(2, int(module.num_experts)) for layer, module in modules.items()}  # type: ignore[arg-type]
    n_tokens = torch.zeros(2)
    for batch in model.batches(passages, batch_size):
        at = batch.mask & (torch.arange(batch.mask.shape[1], device=batch.mask.device) == position)
        groups = (at, batch.mask & ~at)
        n_tokens += torch.tensor([float(group.sum()) for group in groups])
        with ExitStack() as hooks, torch.no_grad(), model.eval_mode():
            for layer, module in modules.items():
                hook = _counter(module, counts[layer], groups)
                handle = module.register_forward_pre_hook(hook, with_kwargs=True)
                hooks.callback(handle.remove)
            model.hf(input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False)
    rows = []
    for layer, count in sorted(counts.items()):
        shares = (count / n_tokens[:, None]).tolist()
        rows += [(layer, expert, *each) for expert, each in enumerate(zip(*shares, strict=True))]
    return pd.DataFrame(rows, columns=["layer", "expert", "share", "share_elsewhere"])


def find_experts(model: Model) -> dict[int, nn.Module]:
    """Layer -> its experts, as a module that is given the choice of the router.

    Raises:
        ModelError: the model has no experts, or not in transformers' form.
    """
    modules = {}
    for name, module in model.hf.named_modules():
        match = LAYER.search(f"{name}.")
        parameters = inspect.signature(type(module).forward).parameters
        if match and hasattr(module, "num_experts") and any(each in parameters for each in CHOSEN):
            modules[int(match[1])] = module
    if not modules:
        raise ModelError(
            f"model {model.name!r} has no experts that can be read ({type(model.hf).__name__}); leave out "
            "the statistic `experts`"
        )
    return modules


def _counter(
    module: nn.Module, counts: Tensor, groups: Sequence[Bool[Tensor, "batch position"]]
) -> Callable[..., None]:
    """A hook that adds to `counts` [group, expert] how many tokens of each group chose each expert."""
    signature = inspect.signature(type(module).forward)

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = signature.bind(module, *args, **kwargs).arguments
        chosen = next(arguments[name] for name in CHOSEN if name in arguments)
        chosen = chosen.reshape(groups[0].numel(), -1)
        for row, group in zip(counts, groups, strict=True):
            row += torch.bincount(chosen[group.flatten()].flatten(), minlength=len(row))[: len(row)].cpu()

    return count
