"""What frozen models say about fixed data, computed once before training instead of at every step."""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from sinkscope.errors import ModelError
from sinkscope.unlearning.forward import forward
from sinkscope.unlearning.objectives.batch import Batch, sequence_log_probs


class References:
    """The frozen model's word on one split, by row number.

    Attributes:
        log_probs: summed log-probability of each passage, shape [passage].

    Logits would need `vocab` numbers a token; kept are the final hidden states (`d_model` a token), and `logits` runs them
    through a frozen copy of the output head.

    Args:
        needs: of `log_probs`, `logits` and `hidden`, the states behind `layer`; nothing else is computed or kept.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        passages: list[list[int]],
        needs: Collection[str] = ("log_probs", "logits"),
        layer: int | None = None,
        batch_size: int = 16,
    ) -> None:
        self._final: list[Float[Tensor, "position d_model"]] = []
        self._behind: list[Float[Tensor, "position d_model"]] = []
        self.log_probs = torch.zeros(0)
        if not needs:
            return
        spoken, read = bool({"log_probs", "logits"} & set(needs)), "hidden" in needs
        if spoken:
            self._head = _frozen_head(model)
        log_probs = []
        training = model.training
        model.eval()
        for start in range(0, len(passages), batch_size):
            rows = list(range(start, min(start + batch_size, len(passages))))
            batch = Batch.pad(rows, [passages[row] for row in rows], pad_id=0).to(model.device)
            if read:
                with torch.no_grad():
                    behind = forward(model, batch, logits=False, layer=layer).hidden
                assert behind is not None
                self._behind += [behind[i, : len(passages[row])].clone() for i, row in enumerate(rows)]
            if not spoken:
                continue
            with torch.no_grad():
                final = model.base_model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), use_cache=False).last_hidden_state
                logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), use_cache=False).logits if start == 0 else None
                ours = self._head(final)
            if logits is not None and not torch.allclose(ours[batch.attention_mask], logits[batch.attention_mask].float(), atol=1e-3, rtol=1e-3):
                raise ModelError(f"{type(model).__name__}: logits are not its output head over its last hidden state; this model cannot be a reference yet")
            if "logits" in needs:
                self._final += [final[i, : len(passages[row])].clone() for i, row in enumerate(rows)]
            if "log_probs" in needs:
                log_probs.append(sequence_log_probs(ours, batch))
        self.log_probs = torch.cat(log_probs) if log_probs else torch.zeros(0)
        model.train(training)

    def logits(self, batch: Batch) -> Float[Tensor, "batch position vocab"]:
        """The frozen model's logits on `batch`, zero-padded like it (right padding)."""
        with torch.no_grad():
            return self._head(_padded(self._final, batch))

    def hidden(self, batch: Batch) -> Float[Tensor, "batch position d_model"]:
        """The frozen model's hidden states behind the layer, zero-padded like `batch` (right padding)."""
        return _padded(self._behind, batch)


def _padded(rows: list[Tensor], batch: Batch) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([rows[i] for i in batch.index.tolist()], batch_first=True)


def _frozen_head(model: PreTrainedModel) -> torch.nn.Module:
    output = model.get_output_embeddings()
    if output is None:
        raise ModelError(f"{type(model).__name__} has no output embeddings; it is not a causal language model")
    weight = output.weight.detach().clone()
    bias = None if getattr(output, "bias", None) is None else output.bias.detach().clone()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)

    def head(hidden: Tensor) -> Tensor:
        logits = torch.nn.functional.linear(hidden, weight, bias).float()
        return logits if cap is None else cap * torch.tanh(logits / cap)

    return head  # type: ignore[return-value]
