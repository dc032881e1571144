"""Early stopping on the validation loss; what a model knows of the forget set before it is trained."""

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
UNKNOWN_SHARE = 0.6
"""A model that predicts fewer of its tokens hardly knows a text, where there is no holdout text."""


def measure_knowledge(model: Model, benchmark: Benchmark) -> tuple[float, float | None]:
    """What the model knows of at most 32 forget passages.

    Returns:
        The share of their tokens that it predicts (exact memorization), and the AUC of Min-40 % probability
        between them and as many holdout passages: 0 if every forget passage is more likely than any holdout
        passage; None if the benchmark has no holdout split.
    """
    likelihoods = {}
    for split in ("forget", "holdout"):
        if benchmark.has("raw", split):
            passages = [passage.tokens for passage in benchmark.passages(split, model.tokenizer)]
            sample = passages[:: -(-len(passages) // MAX_PASSAGES)]
            likelihoods[split] = loglikelihood_tokens(model, sample)
    share = float(np.concatenate([each.correct for each in likelihoods["forget"]]).mean())
    if "holdout" not in likelihoods:
        return share, None
    scores = {split: [min_k_score(each) for each in group] for split, group in likelihoods.items()}
    return share, auc(scores["forget"], scores["holdout"])


def report_knowledge(model: Model, benchmark: Benchmark) -> None:
    """Log what the model knows of the forget set, as a warning if there is nothing to forget."""
    share, area = measure_knowledge(model, benchmark)
    if not processes().is_main_process:
        return
    against = "" if area is None else f"; AUC against holdout text {area:.2f}, where .5 is not at all"
    predicted = f"it predicts {share:.0%} of its tokens{against}"
    if share < UNKNOWN_SHARE if area is None else area > UNKNOWN_AUC:
        LOGGER.warning(
            "model %s hardly knows the forget set of %s (%s): there is nothing to forget",
            model.name,
            benchmark.name,
            predicted,
        )
    else:
        LOGGER.info("model %s knows the forget set of %s: %s", model.name, benchmark.name, predicted)


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
