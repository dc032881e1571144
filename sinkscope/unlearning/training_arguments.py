"""transformers' `TrainingArguments` of a recipe: from its own keys, and its group `training`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from sinkscope.errors import RecipeError, first_line, suggest
from sinkscope.unlearning.recipe import Recipe

CHECKPOINTS = "checkpoints are written every --checkpoint-every steps"
ONE_LOSS = "the loss is that of `objective`"
EVALUATION = "evaluate the run with `sinkscope evaluate`, or set early_stopping"
OWN_KEYS = {
    "learning_rate": "set optimizer.learning_rate",
    "weight_decay": "set optimizer.weight_decay",
    "max_grad_norm": "set optimizer.max_grad_norm",
    "num_train_epochs": "set optimizer.epochs",
    "max_steps": "set optimizer.epochs and optimizer.steps_per_epoch",
    "per_device_train_batch_size": "set optimizer.batch_size",
    "auto_find_batch_size": "set optimizer.batch_size",
    "gradient_accumulation_steps": "set optimizer.gradient_accumulation_steps",
    "gradient_checkpointing": "set optimizer.gradient_checkpointing",
    "activation_checkpointing": "set optimizer.gradient_checkpointing",
    "bf16": "set optimizer.precision to mixed",
    "seed": "set `seed`",
    "data_seed": "set `seed`",
    "output_dir": "give --out",
    "save_strategy": CHECKPOINTS,
    "save_steps": CHECKPOINTS,
    "resume_from_checkpoint": "a run resumes by itself",
    "eval_strategy": EVALUATION,
    "eval_steps": EVALUATION,
    "load_best_model_at_end": EVALUATION,
    "label_smoothing_factor": ONE_LOSS,
    "use_liger_kernel": "it leaves out the logits that objectives read",
    "fsdp": "start the run with `accelerate launch`, which shards the model",
    "deepspeed": "a step has several backward passes; start the run with `accelerate launch`",
}
"""Arguments that a recipe's own keys give or that do not apply, and what to do instead."""


def make_training_arguments(
    recipe: Recipe, n_steps: int, directory: Path, device: torch.device
) -> TrainingArguments:
    """The arguments of a run on `device` that writes to `directory`; a step is one item for `Trainer`.

    Checkpoints, microbatches and recomputation are sinkscope's own.

    Raises:
        RecipeError: an argument in the recipe's `training` is unknown, impossible, or not its own to give, or
            the package of a tracker is missing.
    """
    config = recipe.optimizer
    _check_keys(recipe.training)
    own: dict[str, Any] = {
        "output_dir": str(directory),
        "per_device_train_batch_size": 1,
        "max_steps": n_steps,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "optim": "adamw_torch_fused",
        "seed": recipe.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "log_level": "error",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device.type == "cpu" and not torch.cuda.is_available(),
        "dataloader_pin_memory": False,
    }
    try:
        args = TrainingArguments(**own | recipe.training)
    except Exception as error:  # of many types
        raise RecipeError(f"recipe training: {first_line(error)}") from error
    _check_trackers(args.report_to)
    args._n_gpu = min(1, args.n_gpu)  # several GPUs are used by several processes, never by DataParallel
    return args


def _check_keys(training: dict[str, Any]) -> None:
    known = {field.name for field in fields(TrainingArguments)}
    for key in training:
        if key in OWN_KEYS:
            raise RecipeError(f"recipe training.{key} does not apply: {OWN_KEYS[key]}")
        if key not in known:
            hint = suggest(key, sorted(known - OWN_KEYS.keys()), "known keys", "training.")
            raise RecipeError(f"recipe key 'training.{key}' is unknown; {hint}")


def _check_trackers(names: list[str]) -> None:
    for name in names:
        if name not in get_available_reporting_integrations():
            raise RecipeError(
                f"recipe training.report_to: {name} is not installed, or transformers does not know it; run "
                f"`pip install {name}`, or leave it out"
            )
