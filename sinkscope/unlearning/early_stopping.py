"""What is looked at beside the training: whether there is anything to forget, and whether it costs too much of what is to be kept."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import RecipeError
from sinkscope.models.likelihood import auc, loglikelihood_tokens, min_k_score
from sinkscope.models.model import Model
from sinkscope.unlearning.forward import mask_positions
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.sharding import World

LOGGER = logging.getLogger("sinkscope")
PASSAGES = 32
NOTHING_TO_FORGET = 0.4
"""An AUC above this: the model can hardly tell the forget set from text that it never saw (.5: not at all)."""


def knowledge(model: Model, benchmark: Benchmark) -> float | None:
    """AUC of Min-40 % probability between forget and holdout passages (at most 32 each): 0 for a model that knows every forget passage better than any holdout
    one, .5 for a model that knows nothing of them. None where the benchmark has no holdout."""
    if not benchmark.has("raw", "holdout"):
        return None
    values = []
    for split in ("forget", "holdout"):
        passages = [passage.tokens for passage in benchmark.passages(split, model.tokenizer)]
        chosen = passages[:: -(-len(passages) // PASSAGES)]
        values.append([min_k_score(reading) for reading in loglikelihood_tokens(model, chosen)])
    return auc(values[0], values[1])


def warn_if_unknown(model: Model, benchmark: Benchmark, world: World) -> None:
    """Say so in the log of `sinkscope` where there is nothing to forget."""
    known = knowledge(model, benchmark)
    if world.leads and known is not None and known > NOTHING_TO_FORGET:
        text = "model %s hardly knows the forget set of %s (AUC against holdout text %.2f; .5 is not at all): there is nothing to forget"
        LOGGER.warning(text, model.name, benchmark.name, known)


def stopping(recipe: Recipe, model: Model, benchmark: Benchmark) -> Callable[[int], bool]:
    """Early stopping by the loss on the validation passages; never, where the recipe does not ask for it.

    Raises:
        RecipeError: the benchmark has no such passages.
    """
    every, rise = recipe.stopping.every, recipe.stopping.rise
    if every is None:
        return lambda step: False
    if not benchmark.has("raw", "retain2"):
        raise RecipeError(
            f"recipe stopping.every: benchmark {benchmark.name} has no validation passages (raw/retain2); leave it out"
        )
    passages = [passage.tokens for passage in benchmark.passages("retain2", model.tokenizer)][:PASSAGES]
    with mask_positions(model.hf, recipe.hidden):
        start = validation_loss(model, passages)

    def stop(step: int) -> bool:
        if step % every:
            return False
        with mask_positions(model.hf, recipe.hidden):
            return validation_loss(model, passages) > start + rise

    return stop


def validation_loss(model: Model, passages: list[list[int]]) -> float:
    """Negative log-likelihood in nats a token; the model's mode is left as it was."""
    training = model.hf.training
    model.hf.eval()
    readings = loglikelihood_tokens(model, passages)
    model.hf.train(training)
    return -float(np.concatenate([reading.log_probs for reading in readings]).mean())
