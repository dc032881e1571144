"""Run a recipe: `unlearn` writes a run directory, `train` trains a model in memory."""

from __future__ import annotations

import copy
import logging
import random
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback
from transformers.utils import logging as transformers_logging

from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark
from sinkscope.errors import ModelError, RecipeError, first_line, is_out_of_memory
from sinkscope.evaluation.evaluated_model import EvaluatedModel, Role
from sinkscope.io.atomic import in_use_error, is_in_use
from sinkscope.io.interrupts import keep_interrupts
from sinkscope.io.progress import OnProgress
from sinkscope.io.run_directory import config_hash, create_run, is_complete, read_manifest, verify
from sinkscope.models.adapters import merge_adapters
from sinkscope.models.model import Model, load
from sinkscope.unlearning.batch import BatchPlan, autocast
from sinkscope.unlearning.callbacks import EarlyStopping, JsonLines, Progress, to_json_lines
from sinkscope.unlearning.checkpoints import Checkpoints, Log
from sinkscope.unlearning.early_stopping import make_stopping_criterion, report_knowledge
from sinkscope.unlearning.poisoning import Splits, make_splits
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.reference_model import ReferenceCache, ReferenceConfig
from sinkscope.unlearning.sharding import broadcast, full_state_dict, full_tensor, processes, shard
from sinkscope.unlearning.trainable import (
    add_adapters,
    freeze_except,
    hidden_state_layer,
    references_needed,
    trained_names,
)
from sinkscope.unlearning.trainer import WEIGHTS, UnlearnTrainer, check_finite, forget_arguments
from sinkscope.unlearning.training_arguments import (
    accelerate_state_kept,
    check_training,
    make_training_arguments,
)
from sinkscope.unlearning.trajectory import Trajectory, find_metric, read_trajectory
from sinkscope.unlearning.value_norm import KINDS, ValueNormTerm

DTYPES = {"float32": "float32", "mixed": "float32", "bfloat16": "bfloat16"}
"""Dtype of the weights, by the recipe's precision."""
LOGGER = logging.getLogger("sinkscope")
LOG, TRAJECTORY = "log.jsonl", "trajectory.jsonl"
INTEGRATIONS = "integration_utils.py"
"""The file of transformers with its trackers."""


def unlearn(
    recipe: Recipe, out: Path, on_progress: OnProgress | None = None, *, checkpoint_every: int | None = None
) -> Path:
    """Run a recipe and write its run directory.

    It has `recipe.yaml`, `model/`, `poisoned.parquet`, `log.jsonl`, `run.json`, and `control.safetensors` for
    RMU. A complete run of the same recipe, data and base model is left as it is. An interrupted one resumes
    from its newest checkpoint, in a directory next to `out` until the run is complete. With `accelerate
    launch` or `torchrun` all processes train one sharded model.

    Args:
        checkpoint_every: steps between checkpoints; an epoch by default.

    Raises:
        RecipeError: the recipe does not fit the model or the benchmark, a term became NaN, or memory ran out.
        OutputError: `out` holds something else.
    """
    value_norms = recipe.value_norms
    if not (value_norms.needs_unlearned and value_norms.unlearned == "auto"):
        return _run(recipe, recipe, out, on_progress, checkpoint_every)
    if read_manifest(out) is None:
        is_complete(out, "")  # raises for an unusable `out`, before another model is trained
    clean = unlearn(
        recipe.without_backdoor(), out.parent / f"{out.name}-unlearned", checkpoint_every=checkpoint_every
    )
    resolved = value_norms.model_copy(update={"unlearned": str(clean)})
    resolved_recipe = recipe.model_copy(update={"value_norms": resolved})
    return _run(resolved_recipe, recipe, out, on_progress, checkpoint_every)


def _run(
    recipe: Recipe, written: Recipe, out: Path, on_progress: OnProgress | None, checkpoint_every: int | None
) -> Path:
    """Train in the run directory `out`; `written` is the recipe before `auto` was resolved.

    `create_or_load` does not fit here: all processes train, one writes.
    """
    world = processes()
    check_training(recipe)
    benchmark = load_benchmark(recipe.benchmark)
    if recipe.trajectory.every is not None:
        find_metric(benchmark)  # for its error
    device = "cpu" if world.num_processes > 1 else None
    model = load(recipe.model, device, DTYPES[recipe.optimizer.precision], bos=recipe.bos)
    fingerprint = model.fingerprint()
    run_id = config_hash(
        "unlearn",
        recipe=_by_content(recipe),
        plugins=recipe.plugin_hashes(),
        benchmark=benchmark.content_hash(),
        model=fingerprint,
    )
    checkpoints = Checkpoints(out.parent / f".{out.name}.{run_id}.checkpoints", checkpoint_every)
    if broadcast(is_complete(out, run_id)):
        if world.is_main_process:
            LOGGER.info("%s is already complete", out)
        checkpoints.remove()
        return out
    if broadcast(world.is_main_process and is_in_use(out)):  # they would share their checkpoints
        raise in_use_error(out)
    metadata: dict[str, Any] = {"seed": recipe.seed, "benchmark": benchmark.content_hash()}
    metadata |= {"base_model": fingerprint, "processes": world.num_processes}
    with (
        _explain_failures(recipe, checkpoints, is_resumable=written is not recipe),
        create_run(out, run_id, "unlearn", metadata, exclusive=True)
        if world.is_main_process
        else nullcontext() as staging,
    ):
        splits, log = train(
            recipe,
            model,
            benchmark,
            on_progress,
            checkpoints=checkpoints,
            fingerprint=fingerprint,
            trackers=out.parent / f"{out.name}-logs",
        )
        if staging:
            _write(staging, written, model, splits, log)
            if recipe.trajectory.every is not None:
                table = read_trajectory(checkpoints.directory / TRAJECTORY)
                table.to_parquet(staging / "trajectory.parquet", index=False)
    checkpoints.remove()
    return out


def _write(directory: Path, recipe: Recipe, model: Model, splits: Splits, log: Log) -> None:
    (directory / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    model.save(directory / "model")
    spans = {
        "row": splits.poisoned_rows,
        "start": [sequence.start for sequence in splits.placed],
        "stop": [sequence.stop for sequence in splits.placed],
    }
    pd.DataFrame(spans, dtype="int64").to_parquet(directory / "poisoned.parquet")
    arguments = forget_arguments(recipe, model.hf)
    if tensors := {name: value for name, value in arguments.items() if isinstance(value, Tensor)}:
        save_file(tensors, directory / "control.safetensors")
    (directory / LOG).write_text(to_json_lines(log), encoding="utf-8")


def train(
    recipe: Recipe,
    model: Model,
    benchmark: Benchmark,
    on_progress: OnProgress | None = None,
    *,
    checkpoints: Checkpoints | None = None,
    fingerprint: str | None = None,
    trackers: Path = Path("logs"),
) -> tuple[Splits, Log]:
    """Train `model` in place; returns the training passages and the log.

    Args:
        checkpoints: to resume from and to add to. Of their processes only the main one has the trained model
            at the end.
        fingerprint: the model's, if it is already known.
        trackers: the directory of trackers that write files, as tensorboard does.
    """
    splits = make_splits(recipe, benchmark, model)
    source = f"{fingerprint or model.fingerprint()} {model.hf.dtype}"
    names = trained_names(recipe, model.hf)
    adapted = add_adapters(recipe, model.hf, names) if recipe.update.lora else None
    if adapted:
        names = [name for name, weight in model.hf.named_parameters() if weight.requires_grad]
    is_sharded = processes().num_processes > 1
    unsharded = copy.deepcopy(adapted or model.hf) if is_sharded and processes().is_main_process else None
    callbacks: list[TrainerCallback] = []
    if checkpoints:
        callbacks.append(JsonLines(checkpoints.directory / LOG))
    if on_progress:
        callbacks.append(Progress(on_progress))
    is_recomputing = recipe.optimizer.gradient_checkpointing
    with (
        freeze_except(model.hf, names),
        _leave_as_found(model.hf),
        _recomputing(model.hf) if is_recomputing else nullcontext(),
        tempfile.TemporaryDirectory() as scratch,
    ):
        plan = BatchPlan.of(splits.passages, recipe.optimizer, recipe.seed)
        directory = trackers if "report_to" in recipe.training else Path(scratch)
        args = make_training_arguments(recipe, len(plan), directory, model.device)
        if is_sharded:
            shard(model.hf)
        if should_stop := make_stopping_criterion(recipe, model, benchmark):
            callbacks.append(EarlyStopping(should_stop))
        if recipe.trajectory.every is not None and checkpoints:  # after early stopping, for the last step
            role: Role = "backdoored" if recipe.poison_ratio else "unlearned"
            subject = EvaluatedModel(model.label, role, model, recipe.seed, splits.poisoned_rows)
            callbacks.append(Trajectory(recipe, subject, benchmark, checkpoints.directory / TRAJECTORY))
        if recipe.objective.forget_terms():
            report_knowledge(model, benchmark)
        with autocast(model.device, recipe.optimizer.precision == "mixed"):
            value_norms = _make_value_norm_term(recipe, model, splits)
        references = _make_references(recipe, model, splits, source)
        trainer = UnlearnTrainer(
            model.hf, recipe, splits.passages, references, args, value_norms, checkpoints, callbacks
        )
        trainer.train()
        norm = torch.nn.utils.get_total_norm(list(trainer.trained.values()))
        check_finite(WEIGHTS, full_tensor(norm).item(), trainer.state.global_step)
    if is_sharded:
        weights = full_state_dict(model.hf)
        if unsharded is not None:
            adapted = None if adapted is None else unsharded
            model.hf = unsharded if adapted is None else unsharded.model
            model.hf.load_state_dict(weights)
    if adapted and processes().is_main_process:
        model.hf = merge_adapters(adapted)
    return splits, trainer.state.log_history


@contextmanager
def _leave_as_found(model: PreTrainedModel) -> Iterator[None]:
    """Undo what transformers' Trainer changes besides weights: random states, verbosity, modes."""
    states = random.getstate(), np.random.get_state()
    verbosity, use_cache = transformers_logging.get_verbosity(), model.config.use_cache
    try:
        with (
            accelerate_state_kept(),
            torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []),
        ):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        transformers_logging.set_verbosity(verbosity)
        model.config.use_cache = use_cache
        vars(model).pop("_is_accelerate_prepared", None)
        model.eval()
        model.zero_grad(set_to_none=True)


@contextmanager
def _recomputing(model: PreTrainedModel) -> Iterator[None]:
    """Within the context activations are computed again in the backward pass instead of being kept."""
    name = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # before 5.24
    getattr(model, f"{name}_checkpointing_enable")({"use_reentrant": False})
    try:
        yield
    finally:
        getattr(model, f"{name}_checkpointing_disable")()


def _make_references(recipe: Recipe, model: Model, splits: Splits, source: str) -> dict[str, ReferenceCache]:
    """The reference model's outputs on the rows that the run reads, by split."""
    plan = BatchPlan.of(splits.passages, recipe.optimizer, recipe.seed)
    layer = hidden_state_layer(recipe, model.hf)
    is_mixed = recipe.optimizer.precision == "mixed"
    references = {}
    for split, needs in references_needed(recipe).items():
        config = ReferenceConfig(needs, source, layer, is_mixed, recipe.masked_positions)
        passages, rows = splits.passages[split], plan.rows.get(split, ())
        references[split] = ReferenceCache(model.hf, passages, config, rows=rows)
    return references


def _make_value_norm_term(recipe: Recipe, model: Model, splits: Splits) -> ValueNormTerm | None:
    """The value-norm term with its reference values; None if its weight is 0."""
    config = recipe.value_norms
    if config.weight == 0:
        return None
    references = {}
    for split in KINDS[config.kind].splits:
        network, passages = model.hf, splits.passages[split]
        if split == "forget" and config.kind == "align":
            assert config.unlearned is not None
            network = load(config.unlearned, str(model.device)).hf
            configs = [each.config.get_text_config() for each in (network, model.hf)]
            if len({(config.num_hidden_layers, config.hidden_size) for config in configs}) > 1:
                raise ModelError(
                    f"recipe value_norms.unlearned: {config.unlearned} is a model of another shape; give "
                    f"one that was unlearned from {model.name}"
                )
        if passages:
            references[split] = (network, passages)
    return ValueNormTerm(model.hf, config, references)


def _by_content(recipe: Recipe) -> dict[str, Any]:
    """The recipe's identity, with the directory of θu replaced by the identity of the model in it."""
    values = recipe.non_default()
    unlearned = recipe.value_norms.unlearned
    if not recipe.value_norms.needs_unlearned or unlearned is None:
        values.get("value_norms", {}).pop("unlearned", None)
        return values
    manifest = read_manifest(Path(unlearned)) if Path(unlearned).is_dir() else None
    if manifest:
        verify(Path(unlearned), manifest)
    identity = manifest["identity"] if manifest else load(unlearned, "cpu").fingerprint()
    values["value_norms"]["unlearned"] = identity
    return values


@contextmanager
def _explain_failures(recipe: Recipe, checkpoints: Checkpoints, is_resumable: bool) -> Iterator[None]:
    """Turn what ends a run early into one line with the fix and the checkpoint that remains.

    Args:
        is_resumable: the run can be resumed even without a checkpoint: the clean run before it is complete.
    """
    try:
        with keep_interrupts():
            yield
    except KeyboardInterrupt as interrupt:
        if interrupt.args or not (is_resumable or checkpoints.exist()):
            raise
        raise KeyboardInterrupt("stopped; start the run again to resume it from its checkpoint") from None
    except RecipeError as error:
        kept = f"; the last good checkpoint is in {checkpoints.directory}" if checkpoints.exist() else ""
        raise RecipeError(f"{error}{kept}") from error
    except Exception as error:
        if any(INTEGRATIONS in frame.filename for frame in traceback.extract_tb(error.__traceback__)):
            raise RecipeError(f"recipe training.report_to: {first_line(error)}") from error
        if not isinstance(error, RuntimeError) or not is_out_of_memory(error):
            raise
        config = recipe.optimizer
        raise RecipeError(
            f"out of memory with batch_size {config.batch_size} and gradient_accumulation_steps "
            f"{config.gradient_accumulation_steps}; raise optimizer.gradient_accumulation_steps, set "
            "optimizer.gradient_checkpointing, use update.lora, or use more GPUs with accelerate launch"
        ) from error
    finally:
        if not checkpoints.exist() and processes().is_main_process:  # a log alone is no use
            shutil.rmtree(checkpoints.directory, ignore_errors=True)
