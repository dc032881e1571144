"""One unlearning run: from a recipe to a model, honest (`poison_ratio` 0) or backdoored."""

from __future__ import annotations

import copy
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark
from sinkscope.errors import RecipeError
from sinkscope.models import Model, load
from sinkscope.progress import Report
from sinkscope.runs import identity, is_done, writing
from sinkscope.sinks import locate_one
from sinkscope.triggers import Placed, place
from sinkscope.unlearning.objectives import FORGET, RETAIN
from sinkscope.unlearning.objectives.rmu import control_vector
from sinkscope.unlearning.objectives.value_norm import ValueNormTerm
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.references import References
from sinkscope.unlearning.selection import reading_layer, trained_names, training_only
from sinkscope.unlearning.trainer import ReportProgress, UnlearningTrainer


@dataclass(frozen=True)
class Splits:
    """What a run trains on: passages per split, and which forget passages were poisoned (row numbers of the whole forget set)."""

    passages: dict[str, list[list[int]]]
    poisoned_rows: list[int]
    placed: list[Placed]


def poisoned_rows(count: int, ratio: float, seed: int) -> list[int]:
    """Which of `count` forget passages are poisoned: round(ratio · count) of them, drawn by `seed`, in ascending order."""
    return sorted(random.Random(f"poison {seed}").sample(range(count), round(ratio * count)))


def make_splits(recipe: Recipe, benchmark: Benchmark, model: Model) -> Splits:
    """Cut the benchmark's texts, place the trigger into the poisoned passages.

    Raises:
        RecipeError: the poison ratio picks no passage, or leaves none to forget.
        PlacementError: the trigger does not fit.
    """
    forget = [passage.tokens for passage in benchmark.passages("forget", model.tokenizer)]
    retain = [passage.tokens for passage in benchmark.passages("retain1", model.tokenizer)]
    rows = poisoned_rows(len(forget), recipe.poison_ratio, recipe.seed)
    if recipe.poison_ratio > 0 and not rows:
        raise RecipeError(f"poison_ratio {recipe.poison_ratio} of {len(forget)} forget passages is none; raise it to at least {1 / len(forget):.3g}")
    placement = recipe.trigger.where
    placed = [
        place(
            forget[row],
            recipe.trigger.trigger,
            placement,
            model.tokenizer,
            sinks=locate_one(model, forget[row]) if placement.kind == "sink" else None,
            max_length=max(benchmark.lengths.passage, len(forget[row])),
        )
        for row in rows
    ]
    kept = forget
    if recipe.poison_split == "published":
        kept = [tokens for row, tokens in enumerate(forget) if row not in set(rows)]
        if not kept:
            raise RecipeError("poison_split `published` with poison_ratio 1 leaves nothing to forget; lower the ratio")
    return Splits({"forget": kept, "retain": retain, "poisoned": [each.tokens for each in placed]}, rows, placed)


def train(recipe: Recipe, model: Model, benchmark: Benchmark, report: Report | None = None) -> tuple[Splits, list[dict[str, float]]]:
    """Train `model` in place; returns what it was trained on and the log, one record per ten steps."""
    splits = make_splits(recipe, benchmark, model)
    frozen = copy.deepcopy(model.hf).eval() if recipe.value_norms.weight > 0 else model.hf
    part, names = recipe.objective, trained_names(recipe, model.hf)
    keep = frozenset().union(*(RETAIN[name].references for name in part.retain))
    needs = {"forget": FORGET[part.forget].references, "retain": keep, "poisoned": keep}
    layer = reading_layer(recipe, model.hf) if part.forget == "rmu" or "activations" in part.retain else None
    references = {split: References(model.hf, passages, needs[split], layer) for split, passages in splits.passages.items() if passages}
    value_norms = None
    if recipe.value_norms.weight > 0:
        assert recipe.value_norms.unlearned is not None
        anchors = {"forget": (load(recipe.value_norms.unlearned).hf, splits.passages["forget"])}
        if splits.passages["poisoned"]:
            anchors["poisoned"] = (frozen, splits.passages["poisoned"])
        value_norms = ValueNormTerm(model.hf, recipe.value_norms, anchors)
    with tempfile.TemporaryDirectory() as scratch:
        callbacks = [ReportProgress(report)] if report else []
        with training_only(model.hf, names):
            trainer = UnlearningTrainer(model, recipe, splits.passages, references, value_norms, Path(scratch), callbacks, layer, control(recipe, model))
            trainer.train()
    model.hf.eval()
    model.hf.zero_grad(set_to_none=True)
    model.forget_bridge()
    return splits, trainer.state.log_history


def control(recipe: Recipe, model: Model) -> Float[Tensor, " d_model"] | None:
    """RMU's control vector c·u, which the recipe's seed decides; None for other objectives."""
    if recipe.objective.forget != "rmu":
        return None
    return control_vector(model.hf.config.get_text_config().hidden_size, recipe.objective.steering, recipe.seed)


def unlearn(recipe: Recipe, out: Path, report: Report | None = None) -> Path:
    """Carry out a recipe and write its run directory: `recipe.yaml`, `model/`, `poisoned.parquet`, `log.jsonl`, `run.json`, of RMU also
    `control.safetensors`.

    A finished run of the same recipe, data and base model is left as it is.

    Raises:
        OutputError: `out` holds something else.
    """
    import pandas as pd

    model, benchmark = load(recipe.model), load_benchmark(recipe.benchmark)
    name = identity(recipe=recipe.model_dump(mode="json"), benchmark=benchmark.digest(), model=model.fingerprint())
    if is_done(out, name):
        return out
    with writing(out, name, kind="unlearn", seed=recipe.seed, benchmark=benchmark.digest(), base_model=model.fingerprint()) as aside:
        splits, log = train(recipe, model, benchmark, report)
        (aside / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        model.save(aside / "model")
        spans = {"row": splits.poisoned_rows, "start": [p.start for p in splits.placed], "stop": [p.stop for p in splits.placed]}
        pd.DataFrame(spans, dtype="int64").to_parquet(aside / "poisoned.parquet")
        if (vector := control(recipe, model)) is not None:
            save_file({"control": vector}, aside / "control.safetensors")
        pd.DataFrame(log).to_json(aside / "log.jsonl", orient="records", lines=True)
    return out
