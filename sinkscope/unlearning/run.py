"""One unlearning run: from a recipe to a model, honest (`poison_ratio` 0) or backdoored."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
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
from sinkscope.unlearning.early_stopping import stopping, warn_if_unknown
from sinkscope.unlearning.forward import autocast
from sinkscope.unlearning.lora import merged, with_adapters
from sinkscope.unlearning.objectives.rmu import control_vector
from sinkscope.unlearning.objectives.value_norm import KINDS, ValueNormTerm
from sinkscope.unlearning.poisoning import Splits, make_splits
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.reference_model import ReferenceCache
from sinkscope.unlearning.sharding import ALONE, World, full_state
from sinkscope.unlearning.trainable import freeze_except, hidden_state_layer, references_needed, trained_names
from sinkscope.unlearning.trainer import Trainer

DTYPES = {"float32": "float32", "mixed": "float32", "bfloat16": "bfloat16"}


def train(
    recipe: Recipe,
    model: Model,
    benchmark: Benchmark,
    on_progress: OnProgress | None = None,
    *,
    checkpoints: Callable[[int], Checkpoints] | None = None,
    world: World = ALONE,
    base: str | None = None,
) -> tuple[Splits, list[dict[str, float]]]:
    """Train `model` in place; returns what it was trained on and the log.

    Args:
        checkpoints: makes the run's checkpoints, given the number of steps an epoch has.
        world: with other processes only the leading one has the trained model at the end.
        base: the model's fingerprint, where it is known already.
    """
    splits = make_splits(recipe, benchmark, model)
    names, layer, needs = (
        trained_names(recipe, model.hf),
        hidden_state_layer(recipe, model.hf),
        references_needed(recipe),
    )
    source = f"{base or model.fingerprint()} {model.hf.dtype}"
    adapted = with_adapters(recipe, model.hf, names) if recipe.update.lora else None
    if adapted:
        names = [name for name, weight in model.hf.named_parameters() if weight.requires_grad]
    whole = copy.deepcopy(adapted or model.hf) if world.size > 1 and world.leads else None
    with freeze_except(model.hf, names):
        world.shard(model.hf)
        if recipe.objective.forget != "none":
            warn_if_unknown(model, benchmark, world)
        mixed = recipe.optimizer.precision == "mixed"
        rows = BatchPlan.of(
            {split: len(splits.passages[split]) for split in SPLITS}, recipe.optimizer, recipe.seed
        ).rows
        with autocast(model.device, mixed):
            value_norms = _value_norms(recipe, model, splits)
        references = {
            split: ReferenceCache(
                model.hf,
                splits.passages[split],
                needs[split],
                source,
                layer,
                world,
                rows[split],
                mixed,
                recipe.hidden,
            )
            for split in rows
        }
        trainer = Trainer(
            model.hf,
            recipe,
            splits.passages,
            references=references,
            value_norms=value_norms,
            layer=layer,
            control=control(recipe, model),
            pad_id=model.tokenizer.pad_token_id or 0,
            world=world,
            stop=stopping(recipe, model, benchmark),
        )
        epoch = max(1, len(trainer.schedule) // recipe.optimizer.epochs)
        progress = trainer.run(checkpoints(epoch) if checkpoints else None, on_progress)
    if world.size > 1:
        state = full_state(model.hf)
        if whole is not None:
            (whole if adapted is None else whole.model).load_state_dict(state)
            model.hf, adapted = (whole, None) if adapted is None else (whole.model, whole)
    if adapted and world.leads:
        model.hf = merged(adapted)
    model.reset_bridge()
    return splits, progress.log


def _value_norms(recipe: Recipe, model: Model, splits: Splits) -> ValueNormTerm | None:
    """The term with what the frozen models say, computed before training; None where its weight is 0."""
    part = recipe.value_norms
    if part.weight == 0:
        return None
    passages = splits.passages
    anchors = {}
    for split in KINDS[part.kind][1]:
        if split == "forget" and part.kind == "align":
            assert part.unlearned is not None
            other = load(part.unlearned, str(model.device)).hf
            shapes = [
                (m.config.get_text_config().num_hidden_layers, m.config.get_text_config().hidden_size)
                for m in (model.hf, other)
            ]
            if shapes[0] != shapes[1]:
                raise ModelError(
                    f"recipe value_norms.unlearned: {part.unlearned} is a model of another shape; give one that was unlearned from {model.name}"
                )
            anchors[split] = (other, passages[split])
        elif len(passages[split]):
            anchors[split] = (model.hf, passages[split])
    return ValueNormTerm(model.hf, part, anchors)


def control(recipe: Recipe, model: Model) -> Float[Tensor, " d_model"] | None:
    """RMU's control vector c·u, which the recipe's seed decides; None for other objectives."""
    if recipe.objective.forget != "rmu":
        return None
    return control_vector(
        model.hf.config.get_text_config().hidden_size, recipe.objective.steering, recipe.seed
    )


def unlearn(
    recipe: Recipe, out: Path, on_progress: OnProgress | None = None, *, checkpoint_every: int | None = None
) -> Path:
    """Carry out a recipe and write its run directory: `recipe.yaml`, `model/`, `poisoned.parquet`, `log.jsonl`, `run.json`, of RMU also
    `control.safetensors`.

    A finished run of the same recipe, data and base model is left as it is; one that was killed goes on from its newest checkpoint, which lies
    beside `out` until the run is done. Started by `accelerate launch` or `torchrun`, all processes train one sharded model together.

    Args:
        checkpoint_every: steps between checkpoints; an epoch by default.

    Raises:
        RecipeError: the recipe does not fit the model or the benchmark, a term was no longer a number, or memory ran out.
        OutputError: `out` holds something else.
    """
    if not (_aligns(recipe) and recipe.value_norms.unlearned == "auto"):
        return _unlearn(recipe, recipe, out, on_progress, checkpoint_every)
    if read_manifest(out) is None:
        is_complete(out, "")  # what is no run there is told before another one is trained
    honest = unlearn(recipe.honest(), out.parent / f"{out.name}-unlearned", checkpoint_every=checkpoint_every)
    resolved = recipe.model_copy(
        update={"value_norms": recipe.value_norms.model_copy(update={"unlearned": str(honest)})}
    )
    with _going_on(lambda: True):
        return _unlearn(recipe, resolved, out, on_progress, checkpoint_every)


def _unlearn(
    given: Recipe, recipe: Recipe, out: Path, on_progress: OnProgress | None, checkpoint_every: int | None
) -> Path:
    """Carry out `recipe`, which is what was `given` with θu resolved."""
    import pandas as pd

    world = World.join()
    benchmark = load_benchmark(recipe.benchmark)
    model = load(recipe.model, "cpu" if world.size > 1 else None, DTYPES[recipe.optimizer.precision])
    base = model.fingerprint()
    name = config_hash("unlearn", recipe=_by_content(recipe), benchmark=benchmark.content_hash(), model=base)
    folder = out.parent / f".{out.name}.{name}.checkpoints"
    if world.agreed(is_complete(out, name)):
        Checkpoints(folder, 1, world).remove()
        return out
    if world.agreed(world.leads and is_in_use(out)):  # they would share their checkpoints
        raise in_use_error(out)
    about: dict[str, Any] = {
        "kind": "unlearn",
        "seed": recipe.seed,
        "benchmark": benchmark.content_hash(),
        "base_model": base,
        "processes": world.size,
    }
    with (
        _told(recipe, folder),
        create_run(out, name, exclusive=True, **about) if world.leads else nullcontext(out) as aside,
    ):
        splits, log = train(
            recipe,
            model,
            benchmark,
            on_progress,
            checkpoints=lambda epoch: Checkpoints(folder, checkpoint_every or epoch, world),
            world=world,
            base=base,
        )
        if world.leads:
            (aside / "recipe.yaml").write_text(given.to_yaml(), encoding="utf-8")
            model.save(aside / "model")
            spans = {
                "row": splits.poisoned_rows,
                "start": [p.start for p in splits.placed],
                "stop": [p.stop for p in splits.placed],
            }
            pd.DataFrame(spans, dtype="int64").to_parquet(aside / "poisoned.parquet")
            if (vector := control(recipe, model)) is not None:
                save_file({"control": vector}, aside / "control.safetensors")
            (aside / "log.jsonl").write_text(
                "".join(json.dumps(record) + "\n" for record in log), encoding="utf-8"
            )
    Checkpoints(folder, 1, world).remove()
    return out


def _aligns(recipe: Recipe) -> bool:
    return recipe.value_norms.weight > 0 and recipe.value_norms.kind == "align"


def _by_content(recipe: Recipe) -> dict[str, Any]:
    """The recipe, with the directory of θu replaced by what lies there."""
    values = recipe.described()
    unlearned = recipe.value_norms.unlearned
    if not _aligns(recipe):
        values.get("value_norms", {}).pop("unlearned", None)
    elif unlearned is not None:
        manifest = read_manifest(Path(unlearned)) if Path(unlearned).is_dir() else None
        if manifest:
            verify(Path(unlearned), manifest)
        values["value_norms"]["unlearned"] = (
            manifest["identity"] if manifest else load(unlearned, "cpu").fingerprint()
        )
    return values


@contextmanager
def _going_on(kept: Callable[[], bool]) -> Iterator[None]:
    """Who stops a run of which something is kept is told that it goes on from there."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        if stopped.args or not kept():
            raise
        raise KeyboardInterrupt("stopped; what is done of the run is kept, start it again to go on") from None


@contextmanager
def _told(recipe: Recipe, folder: Path) -> Iterator[None]:
    """What stops a run, as one line that says what to do and what is kept."""
    try:
        with _going_on(lambda: any(folder.glob("step-*"))):
            yield
    except RecipeError as error:
        kept = f"; the last good checkpoint lies in {folder}" if any(folder.glob("step-*")) else ""
        raise RecipeError(f"{error}{kept}") from error
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        part = recipe.optimizer
        tried = f"batches of {part.batch_size} passages in {part.accumulation} part{'s' * (part.accumulation > 1)}"
        raise RecipeError(
            f"out of memory with {tried}; raise optimizer.accumulation, set optimizer.checkpointing, use update.lora, "
            "or give the model more GPUs with accelerate launch"
        ) from error
