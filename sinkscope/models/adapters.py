"""Adapters of PEFT (LoRA and its like): a directory with changes to another model, which it names."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sinkscope.errors import ModelError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
FILES = (CONFIG, WEIGHTS)


@dataclass(frozen=True)
class Adapter:
    """A directory with an adapter, and the name of the model that it was trained on."""

    directory: Path
    base: str


def is_adapter(name: str) -> bool:
    """Whether a name stands for a directory with an adapter and no model."""
    return (Path(name) / CONFIG).is_file() and not (Path(name) / "config.json").exists()


def find_adapter(name: str, base: str | None = None) -> Adapter | None:
    """The adapter that a name stands for, if it is a directory with one; `base` replaces the model it names.

    Raises:
        ModelError: it is of a kind that cannot be merged, has no safetensors, or names no model or another
            adapter; or there is a `base` and no adapter.
    """
    directory = Path(name)
    if not is_adapter(name):
        if base is not None:
            raise ModelError(f"model {name!r} is no adapter (it has no {CONFIG}); leave out `base`")
        return None
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        named = config.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"adapter {name!r}: {CONFIG} is damaged ({first_line(error)}); restore it"
        ) from error
    if not (directory / WEIGHTS).is_file():
        raise ModelError(f"adapter {name!r} has no {WEIGHTS}; save it with save_pretrained of PEFT")
    if config.get("task_type") not in ("CAUSAL_LM", None):
        raise ModelError(
            f"adapter {name!r} is for the task {str(config['task_type'])[:40]!r}; give one of a causal "
            "language model"
        )
    if config.get("megatron_config"):  # names a module to import
        raise ModelError(f"adapter {name!r} is for Megatron; merge it there, and save the result")
    if not (base or named):
        raise ModelError(f"adapter {name!r} names no base model; give it as `base`")
    if find_spec("peft") is None:
        raise ModelError(f"model {name!r} is an adapter; install the package that reads it, sinkscope[lora]")
    adapter = Adapter(directory, base or str(named))
    if is_adapter(adapter.base):
        raise ModelError(
            f"adapter {name!r} is for another adapter, {adapter.base!r}; merge that one into its model first"
        )
    return adapter


def merge_adapter(adapter: Adapter, network: PreTrainedModel) -> PreTrainedModel:
    """The network with the adapter added to its weights, in place.

    Raises:
        ModelError: the adapter is damaged, of a kind that cannot be merged, or was trained on another model.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    name = str(adapter.directory)
    try:
        config = PeftConfig.from_pretrained(name)
        if config.is_prompt_learning or config.is_adaption_prompt:
            raise ModelError(
                f"adapter {name!r} is a {config.peft_type}, which adds tokens and cannot be merged into "
                "weights; give a LoRA"
            )
        weights = load_peft_weights(name, device="cpu", use_safetensors=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights that are missing, which is checked here
            adapted = PeftModel.from_pretrained(network, name, config=config)
        missing = get_peft_model_state_dict(adapted).keys() ^ weights.keys()
        if missing:
            raise ModelError(
                f"adapter {name!r} does not fit its base model {adapter.base!r} (first at {min(missing)}); "
                "give the model that it was trained on as `base`"
            )
        with torch.no_grad():
            return adapted.merge_and_unload()
    except ModelError:
        raise
    except Exception as error:  # PEFT and the files' readers raise many types
        reason = first_line(error)[:200]
        raise ModelError(
            f"adapter {name!r} cannot be added to its base model {adapter.base!r}: {reason}; give the "
            "model that it was trained on as `base`"
        ) from error
