"""Outputs of the reference model on the training passages, computed once and kept on disk for later runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from sinkscope.benchmarks.chunking import Passage
from sinkscope.errors import ModelError, OutputError
from sinkscope.io.atomic import cache_directory
from sinkscope.io.run_directory import config_hash, create_run, is_complete, versions
from sinkscope.unlearning.batch import Batch, Outputs, autocast, forward, mask_positions, sequence_log_probs
from sinkscope.unlearning.sharding import broadcast, full_tensor, processes

LOGGER = logging.getLogger("sinkscope")
BATCH_SIZE = 16
PASSAGES_PER_FILE = 256


@dataclass(frozen=True)
class ReferenceConfig:
    """What is computed of a reference model.

    Attributes:
        needs: of `log_probs`, `logits` and `hidden`; nothing else is computed or kept.
        source: identifies the model and its dtype: the key of the cache, with passages, needs and hardware.
        mixed: compute under bfloat16 autocast, as the model in training does.
    """

    needs: Collection[str]
    source: str
    layer: int | None = None
    mixed: bool = False
    masked_positions: Sequence[int] | None = None


class ReferenceCache:
    """Outputs of the reference model on one split, by row number, read from disk on demand.

    Instead of logits (`vocab` numbers a token) final hidden states (`d_model` numbers) are stored, to which
    `logits` applies a frozen copy of the output head. A damaged file is computed again.

    Attributes:
        log_probs: summed log-probability of each passage, shape [passage].

    Args:
        rows: the passages that will be read; all by default.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        passages: Sequence[Passage],
        config: ReferenceConfig,
        *,
        rows: Collection[int] | None = None,
    ) -> None:
        self.log_probs = torch.zeros(len(passages))
        self._files: dict[int, safe_open] = {}
        self._head: Callable[[Tensor], Tensor] | None = None
        rows = sorted(range(len(passages)) if rows is None else set(rows))
        self._file_of = {row: i // PASSAGES_PER_FILE for i, row in enumerate(rows)}
        if not config.needs or not rows:
            return
        world = processes()
        run_id = _cache_key(model, passages, config, rows)
        self._directory = cache_directory() / "references" / run_id
        if not broadcast(world.is_main_process and _is_valid(self._directory, run_id)):
            is_damaged = self._directory.is_dir()
            with (
                create_run(self._directory, run_id, kind="references", overwrite=is_damaged)
                if world.is_main_process
                else nullcontext() as staging
            ):
                for number, tensors in enumerate(_compute(model, passages, config, rows)):
                    if staging:
                        save_file(tensors, staging / f"{number:08d}.safetensors")
            world.wait_for_everyone()
        if "logits" in config.needs:
            self._head = _frozen_head(model, config.mixed)
        if "log_probs" in config.needs:
            first_rows = rows[::PASSAGES_PER_FILE]
            self.log_probs[rows] = torch.cat([self._file(row).get_tensor("log_probs") for row in first_rows])

    def logits(self, batch: Batch) -> Float[Tensor, "batch position vocab"]:
        """Logits on `batch`; those of a zero vector at padding."""
        assert self._head is not None
        with torch.no_grad():
            return self._head(self._read("final", batch))

    def hidden(self, batch: Batch) -> Float[Tensor, "batch position d_model"]:
        """Hidden states on `batch`; 0 at padding."""
        return self._read("hidden", batch)

    def _read(self, kind: str, batch: Batch) -> Tensor:
        rows = [self._file(row).get_tensor(f"{kind}.{row}") for row in batch.index.tolist()]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(batch.input_ids.device)

    def _file(self, row: int) -> safe_open:
        """The memory-mapped file that has `row`."""
        number = self._file_of[row]
        if number not in self._files:
            self._files[number] = safe_open(self._directory / f"{number:08d}.safetensors", framework="pt")
        return self._files[number]


def _cache_key(
    model: PreTrainedModel, passages: Sequence[Passage], config: ReferenceConfig, rows: list[int]
) -> str:
    """Hash of everything that determines the outputs, to the last bit."""
    return config_hash(
        "references",
        source=config.source,
        tokens=[passages[row].tokens for row in rows],
        n_prompt=[passages[row].prompt_length for row in rows],
        rows=rows,
        needs=sorted(config.needs),
        layer=config.layer if "hidden" in config.needs else None,
        mixed=config.mixed,
        masked_positions=config.masked_positions,
        device=str(model.device),
        instructions=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        processes=processes().num_processes,
        versions=versions(),
    )


def _is_valid(directory: Path, run_id: str) -> bool:
    try:
        return is_complete(directory, run_id)
    except OutputError as error:
        LOGGER.warning("%s: it is computed again", str(error).split(";")[0])
        return False


def _compute(
    model: PreTrainedModel, passages: Sequence[Passage], config: ReferenceConfig, rows: Sequence[int]
) -> Iterator[dict[str, Tensor]]:
    """The tensors of one file at a time: `final.ROW`, `hidden.ROW` and `log_probs`, on the CPU."""
    head = _frozen_head(model, config.mixed) if "logits" in config.needs else None
    is_training = model.training
    model.eval()
    for start in range(0, len(rows), PASSAGES_PER_FILE):
        file_rows = rows[start : start + PASSAGES_PER_FILE]
        tensors: dict[str, Tensor] = {}
        log_probs = []
        for first in range(0, len(file_rows), BATCH_SIZE):
            batch_rows = file_rows[first : first + BATCH_SIZE]
            batch = Batch.of(passages, batch_rows).to(model.device)
            outputs, final = _run_reference(model, batch, config)
            if head and start + first == 0:
                _check_head(model, head(final), batch, outputs)
            for name, states in (("final", final), ("hidden", outputs.hidden)):
                if states is not None:
                    for row, state in zip(batch_rows, states, strict=True):
                        tensors[f"{name}.{row}"] = state[: len(passages[row].tokens)].cpu().clone()
            if "log_probs" in config.needs and outputs.logits is not None:
                log_probs.append(sequence_log_probs(outputs.logits, batch).cpu())
        if log_probs:
            tensors["log_probs"] = torch.cat(log_probs)
        yield tensors
    model.train(is_training)


def _run_reference(model: PreTrainedModel, batch: Batch, config: ReferenceConfig) -> tuple[Outputs, Any]:
    """One forward pass; also the final hidden states (the input of the output head), if logits are needed."""
    final: list[Tensor] = []
    needs = set(config.needs)
    with (
        torch.no_grad(),
        mask_positions(model, config.masked_positions),
        autocast(model.device, config.mixed),
        model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: final.append(inputs[0]))
        if "logits" in needs
        else nullcontext(),
    ):
        outputs = forward(
            model,
            batch,
            logits=bool({"log_probs", "logits"} & needs),
            layer=config.layer if "hidden" in needs else None,
        )
    return outputs, final[0] if final else None


def _check_head(model: PreTrainedModel, logits: Tensor, batch: Batch, outputs: Outputs) -> None:
    assert outputs.logits is not None
    mask = batch.attention_mask
    if not torch.allclose(logits[mask], outputs.logits[mask], atol=1e-3, rtol=1e-3):
        raise ModelError(
            f"{type(model).__name__}: logits are not its output head over its last hidden state; this model "
            "cannot be a reference yet"
        )


def _frozen_head(model: PreTrainedModel, mixed: bool) -> Callable[[Tensor], Tensor]:
    """A copy of the output head, with the soft cap of logits that some models have."""
    output = model.get_output_embeddings()
    if output is None:
        raise ModelError(
            f"{type(model).__name__} has no output embeddings; it is not a causal language model"
        )
    weight = full_tensor(output.weight.detach()).clone()
    bias = getattr(output, "bias", None)
    bias = None if bias is None else full_tensor(bias.detach()).clone()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)

    def head(hidden: Tensor) -> Tensor:
        with autocast(hidden.device, mixed):
            logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float()
        return logits if cap is None else cap * torch.tanh(logits / cap)

    return head
