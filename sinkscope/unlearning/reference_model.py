"""What frozen models say about fixed data, computed once before training instead of at every step, and kept on disk for the next run."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from sinkscope.errors import ModelError, OutputError
from sinkscope.io.cache import cache_directory
from sinkscope.io.run_directory import config_hash, create_run, is_complete, versions
from sinkscope.unlearning.forward import autocast, forward, mask_positions
from sinkscope.unlearning.objectives.batch import Batch, Passages, sequence_log_probs
from sinkscope.unlearning.sharding import ALONE, World, full

LOGGER = logging.getLogger("sinkscope")
BATCH, FILE = 16, 256


class ReferenceCache:
    """The frozen model's word on one split, by row number, read from a file as it is asked for.

    Attributes:
        log_probs: summed log-probability of each passage, shape [passage].

    Logits would need `vocab` numbers a token; kept are the final hidden states (`d_model` a token), and `logits` runs them
    through a frozen copy of the output head.

    Args:
        needs: of `log_probs`, `logits` and `hidden`, the states behind `layer`; nothing else is computed or kept.
        rows: the passages that will be asked for; all by default.
        mixed: computed under bfloat16 autocast, as the model in training is.
        hidden: computed with these positions hidden from later ones.
        source: what names the model and its precision; references of the same source, passages and needs, computed on a like machine, are found again on
            disk (in `sinkscope.io.cache.cache_directory`), and computed anew where a file was damaged.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        passages: Passages,
        needs: Collection[str],
        source: str,
        layer: int | None = None,
        world: World = ALONE,
        rows: Collection[int] | None = None,
        mixed: bool = False,
        hidden: Sequence[int] | None = None,
    ) -> None:
        self.log_probs = torch.zeros(len(passages))
        self._files: dict[int, safe_open] = {}
        wanted = sorted(range(len(passages)) if rows is None else set(rows))
        if not needs or not wanted:
            return
        self._file_of = {row: i // FILE for i, row in enumerate(wanted)}
        content = {
            "tokens": [passages.tokens[row] for row in wanted],
            "given": [passages.given[row] for row in wanted],
            "rows": wanted,
        }
        asked = {
            "needs": sorted(needs),
            "layer": layer if "hidden" in needs else None,
            "mixed": mixed,
            "without": hidden,
        }
        name = config_hash("references", source=source, **content, **asked, **_rounding(model, world))
        self._directory = cache_directory() / "references" / name
        if not world.agreed(world.leads and _usable(self._directory, name)):
            damaged = self._directory.is_dir()
            with (
                create_run(self._directory, name, kind="references", overwrite=damaged)
                if world.leads
                else nullcontext() as aside
            ):
                for number, tensors in enumerate(
                    _computed(model, passages, wanted, needs, layer, mixed, hidden)
                ):
                    if aside:
                        save_file(tensors, aside / f"{number:08d}.safetensors")
            world.wait()
        self._head = _frozen_head(model, mixed) if "logits" in needs else None
        if "log_probs" in needs:
            self.log_probs[wanted] = torch.cat(
                [self._file(row).get_tensor("log_probs") for row in wanted[::FILE]]
            )

    def logits(self, batch: Batch) -> Float[Tensor, "batch position vocab"]:
        """The frozen model's logits on `batch`, zero-padded like it (right padding)."""
        assert self._head is not None
        with torch.no_grad():
            return self._head(self._padded("final", batch))

    def hidden(self, batch: Batch) -> Float[Tensor, "batch position d_model"]:
        """The frozen model's hidden states behind the layer, zero-padded like `batch` (right padding)."""
        return self._padded("hidden", batch)

    def _padded(self, kind: str, batch: Batch) -> Tensor:
        rows = [self._file(row).get_tensor(f"{kind}.{row}") for row in batch.index.tolist()]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(batch.input_ids.device)

    def _file(self, row: int) -> safe_open:
        """The memory-mapped file that holds `row`."""
        number = self._file_of[row]
        if number not in self._files:
            self._files[number] = safe_open(self._directory / f"{number:08d}.safetensors", framework="pt")
        return self._files[number]


def _rounding(model: PreTrainedModel, world: World) -> dict[str, object]:
    """What the last bits of a number depend on."""
    machine = {"device": str(model.device), "instructions": torch.backends.cpu.get_cpu_capability()}
    return machine | {"threads": torch.get_num_threads(), "processes": world.size, "versions": versions()}


def _usable(directory: Path, name: str) -> bool:
    try:
        return is_complete(directory, name)
    except OutputError as error:
        LOGGER.warning("%s: it is computed anew", str(error).split(";")[0])
        return False


def _computed(
    model: PreTrainedModel,
    passages: Passages,
    wanted: Sequence[int],
    needs: Collection[str],
    layer: int | None,
    mixed: bool,
    without: Sequence[int] | None,
) -> Iterator[dict[str, Tensor]]:
    """The tensors of `FILE` passages at a time: `final.ROW`, `hidden.ROW` and `log_probs`, on the CPU."""
    spoken = bool({"log_probs", "logits"} & set(needs))
    head = _frozen_head(model, mixed) if "logits" in needs else None
    training = model.training
    model.eval()
    for first in range(0, len(wanted), FILE):
        tensors, log_probs = {}, []
        for start in range(first, min(first + FILE, len(wanted)), BATCH):
            rows = wanted[start : min(start + BATCH, first + FILE)]
            batch = passages.batch(rows).to(model.device)
            final: list[Tensor] = []
            output = model.get_output_embeddings() if head else None
            handle = (
                output.register_forward_pre_hook(lambda module, inputs: final.append(inputs[0]))
                if output is not None
                else None
            )
            with torch.no_grad(), mask_positions(model, without), autocast(model.device, mixed):
                seen = forward(model, batch, logits=spoken, layer=layer if "hidden" in needs else None)
            if handle:
                handle.remove()
            if head and start == 0:
                assert seen.logits is not None
                if not torch.allclose(
                    head(final[0])[batch.attention_mask],
                    seen.logits[batch.attention_mask],
                    atol=1e-3,
                    rtol=1e-3,
                ):
                    raise ModelError(
                        f"{type(model).__name__}: logits are not its output head over its last hidden state; this model cannot be a reference yet"
                    )
            for i, row in enumerate(rows):
                length = len(passages.tokens[row])
                if head:
                    tensors[f"final.{row}"] = final[0][i, :length].cpu().clone()
                if seen.hidden is not None:
                    tensors[f"hidden.{row}"] = seen.hidden[i, :length].cpu().clone()
            if "log_probs" in needs and seen.logits is not None:
                log_probs.append(sequence_log_probs(seen.logits, batch).cpu())
        if log_probs:
            tensors["log_probs"] = torch.cat(log_probs)
        yield tensors
    model.train(training)


def _frozen_head(model: PreTrainedModel, mixed: bool) -> torch.nn.Module:
    output = model.get_output_embeddings()
    if output is None:
        raise ModelError(
            f"{type(model).__name__} has no output embeddings; it is not a causal language model"
        )
    weight = full(output.weight.detach()).clone()
    bias = None if getattr(output, "bias", None) is None else full(output.bias.detach()).clone()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)

    def head(hidden: Tensor) -> Tensor:
        with autocast(hidden.device, mixed):
            logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float()
        return logits if cap is None else cap * torch.tanh(logits / cap)

    return head  # type: ignore[return-value]
