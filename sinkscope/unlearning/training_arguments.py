"""transformers' `TrainingArguments` of a recipe: from its own keys, and its group `training`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from sinkscope.errors import RecipeError, first_line, suggest
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.sharding import processes

NUMBERS = ("warmup_steps", "adam_beta1", "adam_beta2", "adam_epsilon")
ARGUMENTS = (
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "optim",
    "optim_args",
    "report_to",
    "run_name",
    *NUMBERS,
)
"""Arguments that `training` takes; of the others some are keys of the recipe, and some do not apply."""
OPTIMIZERS = ("adamw_torch_fused", "adamw_torch", "adafactor", "sgd", "adagrad", "rmsprop")
OWN_KEYS = {
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "max_grad_norm": "optimizer.max_grad_norm",
    "num_train_epochs": "optimizer.epochs",
    "max_steps": "optimizer.epochs and optimizer.steps_per_epoch",
    "per_device_train_batch_size": "optimizer.batch_size",
    "gradient_accumulation_steps": "optimizer.gradient_accumulation_steps",
    "gradient_checkpointing": "optimizer.gradient_checkpointing",
    "activation_checkpointing": "optimizer.gradient_checkpointing",
    "bf16": "optimizer.precision to mixed",
    "fp16": "optimizer.precision to mixed",
    "seed": "`seed`",
}
"""Arguments that a recipe's own keys give."""


def make_training_arguments(
    recipe: Recipe, n_steps: int, directory: Path, device: torch.device
) -> TrainingArguments:
    """The arguments of a run on `device` that writes to `directory`; a step is one item for `Trainer`.

    Checkpoints, microbatches, recomputation and precision are sinkscope's own.

    Raises:
        RecipeError: an argument in the recipe's `training` is unknown, impossible, or not its own to give;
            the package of a tracker is missing; or the launcher is to shard the model.
    """
    config = recipe.optimizer
    training = dict(recipe.training)
    _check_keys(training)
    for key in training.keys() & set(NUMBERS):
        try:
            training[key] = float(training[key])  # YAML reads 1e-6 as text
        except (TypeError, ValueError):
            raise RecipeError(f"recipe training.{key}: must be a number (got {training[key]!r})") from None
    for variable in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        if os.environ.get(variable, "").lower() == "true":
            raise RecipeError(
                f"recipe: the launcher sets {variable}, and sinkscope shards the model itself; start it with "
                "`accelerate launch --multi_gpu`, or with torchrun"
            )
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
        "use_cpu": device.type == "cpu" and (processes().num_processes == 1 or not torch.cuda.is_available()),
        "dataloader_pin_memory": False,
    }
    try:
        args = TrainingArguments(**own | training)
    except Exception as error:  # of many types
        raise RecipeError(f"recipe training: {first_line(error)}") from error
    _check_trackers(args.report_to)
    args._n_gpu = min(1, args.n_gpu)  # several GPUs are used by several processes, never by DataParallel
    args.mixed_precision = "no"  # whatever the launcher sets: the precision is the recipe's
    return args


def check_training(recipe: Recipe) -> None:
    """Raise the errors of `make_training_arguments` before anything is loaded."""
    with accelerate_state_kept():
        make_training_arguments(recipe, 1, Path(), torch.device("cpu"))


@contextmanager
def accelerate_state_kept() -> Iterator[None]:
    """Within the context accelerate's state may change; of a single process it is then as before."""
    owners = (PartialState, AcceleratorState, GradientState)
    states = [dict(owner._shared_state) for owner in owners]
    try:
        yield
    finally:
        if processes().num_processes == 1:
            for owner, state in zip(owners, states, strict=True):
                owner._shared_state.clear()
                owner._shared_state.update(state)


def _check_keys(training: dict[str, Any]) -> None:
    for key in training:
        if key in OWN_KEYS:
            raise RecipeError(f"recipe training.{key} does not apply: set {OWN_KEYS[key]}")
        if key not in ARGUMENTS:
            hint = suggest(key, ARGUMENTS, "known keys", "training.")
            raise RecipeError(f"recipe key 'training.{key}' is unknown; {hint}")
    optimizer = training.get("optim", OPTIMIZERS[0])
    if optimizer not in OPTIMIZERS:
        raise RecipeError(f"recipe training.optim: {optimizer} is not one of {', '.join(OPTIMIZERS)}")
    if optimizer == "adafactor" and processes().num_processes > 1:
        raise RecipeError("recipe training.optim: adafactor does not train a sharded model; use adamw_torch")


def _check_trackers(names: list[str]) -> None:
    for name in names:
        if name not in get_available_reporting_integrations():
            raise RecipeError(
                f"recipe training.report_to: {name} is not installed, or transformers does not know it; run "
                f"`pip install {name}`, or leave it out"
            )
