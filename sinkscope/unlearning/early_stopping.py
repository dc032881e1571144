"""Early stopping on the validation loss, and a warning if a model does not know the forget set."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import RecipeError
from sinkscope.models.inference import auc, loglikelihood_tokens, min_k_score
from sinkscope.models.model import Model
from sinkscope.unlearning.batch import mask_positions
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.sharding import processes

LOGGER = logging.getLogger("sinkscope")
MAX_PASSAGES = 32
UNKNOWN_AUC = 0.4
"""Above this AUC a model hardly tells the forget set from holdout text (.5: not at all)."""


def membership_auc(model: Model, benchmark: Benchmark) -> float | None:
    """AUC of Min-40 % probability between forget and holdout passages (at most 32 each): 0 if every forget
    passage is more likely than any holdout passage; None if the benchmark has no holdout split."""
    if not benchmark.has("raw", "holdout"):
        return None
    scores = []
    for split in ("forget", "holdout"):
        passages = [passage.tokens for passage in benchmark.passages(split, model.tokenizer)]
        sample = passages[:: -(-len(passages) // MAX_PASSAGES)]
        scores.append([min_k_score(each) for each in loglikelihood_tokens(model, sample)])
    return auc(scores[0], scores[1])


def warn_if_unknown(model: Model, benchmark: Benchmark) -> None:
    """Warn in the log of `sinkscope` if there is nothing to forget."""
    value = membership_auc(model, benchmark)
    if processes().is_main_process and value is not None and value > UNKNOWN_AUC:
        LOGGER.warning(
            "model %s hardly knows the forget set of %s (AUC against holdout text %.2f; .5 is not at all): "
            "there is nothing to forget",
            model.name,
            benchmark.name,
            value,
        )


def make_stopping_criterion(
    recipe: Recipe, model: Model, benchmark: Benchmark
) -> Callable[[int], bool] | None:
    """Whether to stop after a step, by the loss on the validation passages; None without `early_stopping`.

    Raises:
        RecipeError: the benchmark has no validation passages.
    """
    eval_steps = recipe.early_stopping.eval_steps
    if eval_steps is None:
        return None
    if not benchmark.has("raw", "retain2"):
        raise RecipeError(
            f"recipe early_stopping.eval_steps: benchmark {benchmark.name} has no validation passages "
            "(raw/retain2); leave it out"
        )
    passages = [passage.tokens for passage in benchmark.passages("retain2", model.tokenizer)][:MAX_PASSAGES]

    def validation_loss() -> float:
        """In nats a token."""
        with mask_positions(model.hf, recipe.masked_positions):
            likelihoods = loglikelihood_tokens(model, passages)
        return -float(np.concatenate([each.log_probs for each in likelihoods]).mean())

    limit = validation_loss() + recipe.early_stopping.max_loss_increase
    return lambda step: step % eval_steps == 0 and validation_loss() > limit
