"""transformers' `TrainingArguments` of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from pathlib import Path

import torch
from transformers import TrainingArguments

from sinkscope.unlearning.batch import BatchPlan
from sinkscope.unlearning.recipe import Recipe


def make_training_arguments(
    recipe: Recipe, passages: Mapping[str, Sized], directory: Path, device: torch.device
) -> TrainingArguments:
    """The arguments of a run on `device`; a step is one item for `Trainer`, whatever its batch size.

    Checkpoints, microbatches and recomputation are sinkscope's own.
    """
    config = recipe.optimizer
    args = TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=1,
        max_steps=len(BatchPlan.of(passages, config, recipe.seed)),
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        seed=recipe.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        log_level="error",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=device.type == "cpu" and not torch.cuda.is_available(),
        dataloader_pin_memory=False,
    )
    args._n_gpu = min(1, args.n_gpu)  # several GPUs are used by several processes, never by DataParallel
    return args
