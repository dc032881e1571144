"""Run a recipe: train a model and write it as a run directory.

`unlearn` runs a recipe, after the clean unlearning run that it may compare with; `_run` trains in one run
directory; `train` trains a model in memory.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark
from sinkscope.errors import ModelError, RecipeError
from sinkscope.io.atomic import in_use_error, is_in_use
from sinkscope.io.progress import OnProgress
from sinkscope.io.run_directory import config_hash, create_run, is_complete, read_manifest, verify
from sinkscope.models.model import Model, load
from sinkscope.unlearning.batch_plan import SPLITS, BatchPlan
from sinkscope.unlearning.checkpoints import Checkpoints
from sinkscope.unlearning.early_stopping import make_stopping_criterion, warn_if_unknown
from sinkscope.unlearning.forward import autocast
from sinkscope.unlearning.poisoning import Splits, make_splits
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.reference_model import ReferenceCache, ReferenceConfig
from sinkscope.unlearning.sharding import SINGLE_PROCESS, World, full_state_dict
from sinkscope.unlearning.trainable import (
    add_adapters,
    freeze_except,
    hidden_state_layer,
    merge_adapters,
    references_needed,
    trained_names,
)
from sinkscope.unlearning.trainer import Trainer, forget_arguments
from sinkscope.unlearning.value_norm import KINDS, ValueNormTerm

DTYPES = {"float32": "float32", "mixed": "float32", "bfloat16": "bfloat16"}
"""Dtype of the weights, by the recipe's precision."""
Log = list[dict[str, float]]


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
        return _run(recipe, out, on_progress, checkpoint_every)
    if read_manifest(out) is None:
        is_complete(out, "")  # raises for an unusable `out`, before another model is trained
    clean = unlearn(
        recipe.without_backdoor(), out.parent / f"{out.name}-unlearned", checkpoint_every=checkpoint_every
    )
    resolved = value_norms.model_copy(update={"unlearned": str(clean)})
    with _resume_hint(lambda: True):
        return _run(
            recipe.model_copy(update={"value_norms": resolved}), out, on_progress, checkpoint_every, recipe
        )


def _run(
    recipe: Recipe,
    out: Path,
    on_progress: OnProgress | None,
    checkpoint_every: int | None,
    written: Recipe | None = None,
) -> Path:
    """Train in the run directory `out`; `written` is the recipe to write, if `auto` was resolved in `recipe`.

    `create_or_load` does not fit here: all processes train, one writes.
    """
    world = World.join()
    benchmark = load_benchmark(recipe.benchmark)
    model = load(recipe.model, "cpu" if world.size > 1 else None, DTYPES[recipe.optimizer.precision])
    fingerprint = model.fingerprint()
    run_id = config_hash(
        "unlearn",
        recipe=_by_content(recipe),
        plugins=recipe.plugin_hashes(),
        benchmark=benchmark.content_hash(),
        model=fingerprint,
    )
    checkpoints = Checkpoints(out.parent / f".{out.name}.{run_id}.checkpoints", 1, world)
    if world.broadcast(is_complete(out, run_id)):
        checkpoints.remove()
        return out
    if world.broadcast(world.is_main_process and is_in_use(out)):  # they would share their checkpoints
        raise in_use_error(out)
    metadata: dict[str, Any] = {
        "seed": recipe.seed,
        "benchmark": benchmark.content_hash(),
        "base_model": fingerprint,
        "processes": world.size,
    }
    with (
        _explain_failures(recipe, checkpoints),
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
            checkpoint_every=checkpoint_every,
            world=world,
            fingerprint=fingerprint,
        )
        if staging:
            _write(staging, written or recipe, model, splits, log)
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
    tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
    if tensors:
        save_file(tensors, directory / "control.safetensors")
    lines = [json.dumps(record) + "\n" for record in log]
    (directory / "log.jsonl").write_text("".join(lines), encoding="utf-8")


def train(
    recipe: Recipe,
    model: Model,
    benchmark: Benchmark,
    on_progress: OnProgress | None = None,
    *,
    checkpoints: Checkpoints | None = None,
    checkpoint_every: int | None = None,
    world: World = SINGLE_PROCESS,
    fingerprint: str | None = None,
) -> tuple[Splits, Log]:  # the keyword arguments are those of a run directory
    """Train `model` in place; returns the training passages and the log.

    Args:
        checkpoint_every: steps between checkpoints; an epoch by default.
        world: only the main process has the trained model at the end.
        fingerprint: the model's, if it is already known.
    """
    splits = make_splits(recipe, benchmark, model)
    source = f"{fingerprint or model.fingerprint()} {model.hf.dtype}"
    names = trained_names(recipe, model.hf)
    adapted = add_adapters(recipe, model.hf, names) if recipe.update.lora else None
    if adapted:
        names = [name for name, weight in model.hf.named_parameters() if weight.requires_grad]
    unsharded = copy.deepcopy(adapted or model.hf) if world.size > 1 and world.is_main_process else None
    with freeze_except(model.hf, names):
        world.shard(model.hf)
        if recipe.objective.forget_terms():
            warn_if_unknown(model, benchmark, world)
        with autocast(model.device, recipe.optimizer.precision == "mixed"):
            value_norms = _make_value_norm_term(recipe, model, splits)
        trainer = Trainer(
            model.hf,
            recipe,
            splits.passages,
            references=_make_references(recipe, model, splits, source, world),
            value_norms=value_norms,
            pad_id=model.tokenizer.pad_token_id or 0,
            world=world,
            should_stop=make_stopping_criterion(recipe, model, benchmark),
        )
        if checkpoints:
            checkpoints.every = checkpoint_every or max(1, len(trainer.plan) // recipe.optimizer.epochs)
        state = trainer.run(checkpoints, on_progress)
    if world.size > 1:
        weights = full_state_dict(model.hf)
        if unsharded is not None:
            adapted = None if adapted is None else unsharded
            model.hf = unsharded if adapted is None else unsharded.model
            model.hf.load_state_dict(weights)
    if adapted and world.is_main_process:
        model.hf = merge_adapters(adapted)
    model.reset_bridge()
    return splits, state.log


def _make_references(
    recipe: Recipe, model: Model, splits: Splits, source: str, world: World
) -> dict[str, ReferenceCache]:
    """The reference model's outputs on the rows that the run reads, by split."""
    sizes = {split: len(splits.passages[split]) for split in SPLITS}
    needs = references_needed(recipe)
    references = {}
    for split, rows in BatchPlan.of(sizes, recipe.optimizer, recipe.seed).rows.items():
        config = ReferenceConfig(
            needs[split],
            source,
            layer=hidden_state_layer(recipe, model.hf),
            mixed=recipe.optimizer.precision == "mixed",
            masked_positions=recipe.masked_positions,
        )
        references[split] = ReferenceCache(model.hf, splits.passages[split], config, rows=rows, world=world)
    return references


def _make_value_norm_term(recipe: Recipe, model: Model, splits: Splits) -> ValueNormTerm | None:
    """The value-norm term with its reference values; None if its weight is 0."""
    config = recipe.value_norms
    if config.weight == 0:
        return None
    references = {}
    for split in KINDS[config.kind].splits:
        passages = splits.passages[split]
        if split == "forget" and config.kind == "align":
            assert config.unlearned is not None
            other = load(config.unlearned, str(model.device)).hf
            if _shape(other) != _shape(model.hf):
                raise ModelError(
                    f"recipe value_norms.unlearned: {config.unlearned} is a model of another shape; give "
                    f"one that was unlearned from {model.name}"
                )
            references[split] = (other, passages)
        elif len(passages):
            references[split] = (model.hf, passages)
    return ValueNormTerm(model.hf, config, references)


def _shape(model: Any) -> tuple[int, int]:
    config = model.config.get_text_config()
    return config.num_hidden_layers, config.hidden_size


def _by_content(recipe: Recipe) -> dict[str, Any]:
    """The recipe's identity, with the directory of θu replaced by the identity of the model in it."""
    values = recipe.non_default()
    unlearned = recipe.value_norms.unlearned
    if not recipe.value_norms.needs_unlearned:
        values.get("value_norms", {}).pop("unlearned", None)
    elif unlearned is not None:
        manifest = read_manifest(Path(unlearned)) if Path(unlearned).is_dir() else None
        if manifest:
            verify(Path(unlearned), manifest)
        identity = manifest["identity"] if manifest else load(unlearned, "cpu").fingerprint()
        values["value_norms"]["unlearned"] = identity
    return values


@contextmanager
def _resume_hint(is_resumable: Callable[[], bool]) -> Iterator[None]:
    """Add to an interrupt that the run can be resumed, if it can."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if interrupt.args or not is_resumable():
            raise
        raise KeyboardInterrupt("stopped; start the run again to resume it from its checkpoint") from None


@contextmanager
def _explain_failures(recipe: Recipe, checkpoints: Checkpoints) -> Iterator[None]:
    """Turn what ends a run early into one line with the fix and the checkpoint that remains."""
    try:
        with _resume_hint(checkpoints.exist):
            yield
    except RecipeError as error:
        kept = f"; the last good checkpoint is in {checkpoints.directory}" if checkpoints.exist() else ""
        raise RecipeError(f"{error}{kept}") from error
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        config = recipe.optimizer
        raise RecipeError(
            f"out of memory with batch_size {config.batch_size} and gradient_accumulation_steps "
            f"{config.gradient_accumulation_steps}; raise optimizer.gradient_accumulation_steps, set "
            "optimizer.gradient_checkpointing, use update.lora, or use more GPUs with accelerate launch"
        ) from error
