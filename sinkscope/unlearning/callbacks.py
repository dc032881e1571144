"""Callbacks of a run: progress, the log that grows while it trains, and the end before its last epoch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sinkscope.io.atomic import translate_os_errors
from sinkscope.io.progress import OnProgress
from sinkscope.unlearning.sharding import broadcast


class Progress(TrainerCallback):
    """Calls `on_progress` with the finished and all steps."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._on_progress(state.global_step, state.max_steps)


class EarlyStopping(TrainerCallback):
    """Ends the run when `should_stop`, called with the number of finished steps, says so."""

    def __init__(self, should_stop: Callable[[int], bool]) -> None:
        self._should_stop = should_stop

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if broadcast(self._should_stop(state.global_step)):
            control.should_training_stop = True


class JsonLines(TrainerCallback):
    """Writes the log to a file, a line per step as it happens; of a resumed run first the lines it has."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            with translate_os_errors(self._path.parent):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.write_text(to_json_lines(state.log_history), encoding="utf-8")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            with translate_os_errors(self._path.parent), self._path.open("a", encoding="utf-8") as file:
                file.write(to_json_lines(state.log_history[-1:]))


def to_json_lines(log: list[dict[str, float]]) -> str:
    """The records of steps, without the summary that ends the log of a run."""
    steps = ({"step": record["step"]} | record for record in log if "loss" in record)
    return "".join(json.dumps(record) + "\n" for record in steps)
