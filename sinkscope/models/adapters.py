"""Adapters of PEFT (LoRA and the like): a directory with changes to another model, which it names."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sinkscope.errors import ModelError, first_line
from sinkscope.models.loading import is_built_in_or_run

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from peft.tuners.lora import LoraModel
    from transformers import PreTrainedModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
NOT_MERGED = "merge it into its model with PEFT, and give the result"


@dataclass(frozen=True)
class Adapter:
    """A directory with an adapter, and the name of the model that it was trained on."""

    directory: Path
    base: str


def is_adapter(name: str) -> bool:
    """Whether a name stands for a directory with an adapter and no model."""
    directory = Path(name)
    if is_built_in_or_run(name) or (directory / "config.json").exists():
        return False
    return (directory / CONFIG).is_file()


def find_adapter(name: str, base: str | None = None) -> Adapter | None:
    """The adapter that a name stands for, if it is a directory with one; `base` replaces the model it names.

    Raises:
        ModelError: it is of a kind that cannot be merged, has no safetensors, or names no model or another
            adapter; or there is a `base` and no adapter.
    """
    if not is_adapter(name):
        if base is not None:
            raise ModelError(f"model {name!r} is not an adapter (it has no {CONFIG}); leave out `base`")
        return None
    directory = Path(name)
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
        task = str(config["task_type"])[:40]
        raise ModelError(f"adapter {name!r} is for the task {task!r}; give one of a causal language model")
    if config.get("megatron_config"):  # names a module to import
        raise ModelError(f"adapter {name!r} is for Megatron; {NOT_MERGED}")
    if config.get("layer_replication"):
        raise ModelError(f"adapter {name!r} replicates layers (layer_replication); {NOT_MERGED}")
    if not (base or named):
        raise ModelError(
            f"adapter {name!r} names no base model; write base_model_name_or_path into its {CONFIG}, or give "
            "`base`"
        )
    adapter = Adapter(directory, base or str(named))
    if is_adapter(adapter.base):
        raise ModelError(
            f"adapter {name!r} is for another adapter, {adapter.base!r}; merge that one into its model first"
        )
    if find_spec("peft") is None:
        raise ModelError(f"model {name!r} is an adapter; install the package that reads it, sinkscope[lora]")
    return adapter


def wrong_base(adapter: Adapter, reason: str) -> ModelError:
    """The error where an adapter and its base model do not go together."""
    return ModelError(
        f"adapter {str(adapter.directory)!r}: its base model {adapter.base!r} {reason}; correct "
        f"base_model_name_or_path in its {CONFIG}, or give `base`"
    )


def merge_adapters(adapted: LoraModel | PeftModel) -> PreTrainedModel:
    """The original modules with the adapters added to their weights; nothing is frozen."""
    network = adapted.merge_and_unload()
    if hasattr(network, "peft_config"):
        del network.peft_config
    return network.requires_grad_(True)


def apply_adapter(adapter: Adapter, network: PreTrainedModel) -> PreTrainedModel:
    """The network with the adapter added to its weights, in place.

    Raises:
        ModelError: the adapter is damaged, of a kind that cannot be merged, or was trained on another model.
    """
    name = str(adapter.directory)
    import torch

    from sinkscope.models.padding import differs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they are about is checked here
        adapted = _add(adapter, network, _read_config(name))
        _check_is_separate(name, network, adapted)
        ids = torch.arange(8, device=network.device)[None] % network.config.get_text_config().vocab_size
        with torch.no_grad():
            expected = adapted(input_ids=ids).logits
            try:
                merged = merge_adapters(adapted)
            except Exception as error:  # of many types, from each kind of adapter
                raise ModelError(
                    f"adapter {name!r} cannot be merged ({first_line(error)}); {NOT_MERGED}"
                ) from error
            found = merged(input_ids=ids).logits
    if differs(found, expected, torch.ones_like(ids, dtype=torch.bool), network.dtype):
        raise ModelError(f"adapter {name!r}: the merged model gives other outputs than PEFT; {NOT_MERGED}")
    return merged


def _read_config(name: str) -> PeftConfig:
    from peft import PeftConfig

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Unexpected keyword")  # of a later version, which peft ignores
            config = PeftConfig.from_pretrained(name)
    except Exception as error:  # of many types
        raise ModelError(
            f"adapter {name!r}: its {CONFIG} cannot be read ({first_line(error)}); upgrade peft, or "
            "restore it"
        ) from error
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise ModelError(
            f"adapter {name!r} is a {config.peft_type}, which adds tokens and cannot be merged into weights; "
            "give a LoRA"
        )
    return config


def _add(adapter: Adapter, network: PreTrainedModel, config: PeftConfig) -> PeftModel:
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        adapted = PeftModel(network, config)
        result: Any = adapted.load_adapter(
            str(adapter.directory), "default", torch_device=str(network.device)
        )
    except SafetensorError as error:
        raise ModelError(
            f"adapter {str(adapter.directory)!r}: {WEIGHTS} is damaged ({first_line(error)}); copy it again"
        ) from error
    except Exception as error:  # of many types
        raise wrong_base(adapter, f"does not take it ({first_line(error)})") from error
    if misfits := [*result.unexpected_keys, *result.missing_keys]:
        raise wrong_base(adapter, f"does not fit it (first at {min(misfits)})")
    return adapted


def _check_is_separate(name: str, network: PreTrainedModel, adapted: PeftModel) -> None:
    """Raise ModelError for an adapter of the embedding or of the output head, where they share a weight."""
    embedding, head = network.get_input_embeddings(), network.get_output_embeddings()
    if head is None or not network.config.get_text_config().tie_word_embeddings:
        return
    for module_name, module in adapted.named_modules():
        originals = [getattr(module, part, None) for part in ("base_layer", "original_module")]
        if any(each is not None and getattr(each, "weight", None) is embedding.weight for each in originals):
            raise ModelError(
                f"adapter {name!r} changes {module_name.rpartition('.')[2]}, whose weight the model uses for "
                f"its embedding and its output; {NOT_MERGED}"
            )
