"""A model's TransformerLens bridge, and whether it still has the model's present weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGGER = logging.getLogger("sinkscope")


@dataclass(frozen=True)
class BootedBridge:
    """A bridge, whether it has copies of weights, and what was equal about the weights when it was booted."""

    bridge: TransformerBridge
    has_copies: bool
    weights_key: list[Any]

    def is_current(self, network: PreTrainedModel, fingerprint: Callable[[], str]) -> bool:
        """Whether the weights are those that the bridge was booted with.

        Args:
            fingerprint: called if the bridge has copies, whose content has to be compared.
        """
        return self.weights_key == _weights_key(network, fingerprint if self.has_copies else str)

    @classmethod
    def boot(
        cls,
        name: str,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        fingerprint: Callable[[], str],
    ) -> BootedBridge:
        """Boot on a copy of the module tree, as booting replaces modules and sets eager attention."""
        from transformer_lens.model_bridge import TransformerBridge

        tensors = [*network.parameters(), *network.buffers()]
        copied = copy.deepcopy(tokenizer)
        copied.init_kwargs["add_bos_token"] = (
            True  # else it is loaded again from its path, if there still is one
        )
        bridge = TransformerBridge.boot_transformers(
            name,
            hf_model=copy.deepcopy(network, memo={id(tensor): tensor for tensor in tensors}),
            tokenizer=copied,
            device=str(network.device),
        )
        bridge.eval()
        shared = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        storages = [tensor.untyped_storage() for tensor in bridge.parameters()]
        copies = {each.data_ptr(): each.nbytes() for each in storages if each.data_ptr() not in shared}
        if copies:
            LOGGER.info(
                "model %s: its TransformerLens bridge takes %.0f MB", name, sum(copies.values()) / 1e6
            )
        return cls(bridge, bool(copies), _weights_key(network, fingerprint if copies else str))


def _weights_key(network: PreTrainedModel, fingerprint: Callable[[], str]) -> list[Any]:
    """What is equal as long as a bridge has the present weights."""
    tensors = [*network.parameters(), *network.buffers()]
    return [fingerprint(), *((id(tensor), tensor.dtype, tensor.device) for tensor in tensors)]
