"""The jobs that measure a run: evaluations, captures of attention, and its divergence from another run."""

from __future__ import annotations

from typing import Any

from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark
from sinkscope.errors import StudyError
from sinkscope.evaluation.evaluate import default_retain_model
from sinkscope.evaluation.metrics import METRICS, select_metrics
from sinkscope.models.loading import BUILT_IN
from sinkscope.models.model import content_hash, load_meta_model
from sinkscope.studies.jobs import Job, Run
from sinkscope.studies.spec import OWN, CaptureConfig, EvaluationConfig
from sinkscope.triggers import Placement


class GivenInputs:
    """Models and benchmarks that a study names and does not make, each read once."""

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}
        self._benchmarks: dict[str, Benchmark] = {}

    def digest(self, model: str) -> str:
        """Content hash of a model.

        Raises:
            ModelError: it cannot be loaded.
        """
        if model not in self._digests:
            if model not in BUILT_IN:
                load_meta_model(model)  # report a model that cannot be loaded before any job starts
            self._digests[model] = content_hash(model)
        return self._digests[model]

    def benchmark(self, name: str) -> Benchmark:
        if name not in self._benchmarks:
            self._benchmarks[name] = load_benchmark(name)
        return self._benchmarks[name]

    def model_of(self, run: Run) -> tuple[dict[str, str], dict[str, Job], dict[str, str]]:
        """How a job refers to the model of a run: its content, needs and fixed hashes."""
        if run.model:
            return {}, {"model": run.model}, {}
        return {"model": run.name}, {}, {"model": self.digest(run.name)}


def label_of(grid: str, labels: dict[str, Any], seed: int) -> str:
    return " ".join([grid, *map(str, labels.values()), f"seed {seed}"])


def evaluation_job(run: Run, config: EvaluationConfig, inputs: GivenInputs) -> Job:
    """The job of one evaluation of a run.

    Raises:
        StudyError: no benchmark is named, neither by the evaluation nor by the run.
        BenchmarkError: the benchmark does not exist, or cannot be scored by one of the metrics.
    """
    content, needs, fixed = _common_parts(run, config.benchmark, inputs)
    benchmark = inputs.benchmark(content["benchmark"])
    retain_model = default_retain_model(benchmark, config.metrics)
    if retain_model in BUILT_IN:
        fixed["retain_model"] = inputs.digest(str(retain_model))
    plugins = METRICS.plugin_hashes(select_metrics(config.metrics, benchmark))
    fixed |= {f"plugin {name}": digest for name, digest in plugins.items()}
    conditions: dict[tuple[str, str], list[str]] = {}
    for text in config.triggers:
        trigger, form = (run.trigger.text, run.trigger.form) if text == OWN else (text, "semantic")
        for placement in _placements(run, config.placements):
            conditions[trigger, placement] = [trigger, form, placement]
    content |= {
        "conditions": ([None] if config.clean else []) + list(conditions.values()),
        "metrics": config.metrics,
        "mask": config.mask,
        "limit": config.limit,
        "retain_model": retain_model,
    }
    return Job("evaluate", content, needs, fixed, label_of(run.grid, run.labels, run.seed))


def capture_job(run: Run, config: CaptureConfig, inputs: GivenInputs) -> Job:
    """The job of one capture of a run.

    Raises:
        StudyError: the run has no benchmark.
    """
    content, needs, fixed = _common_parts(run, None, inputs)
    content |= {
        "trigger": [run.trigger.text, run.trigger.form],
        "placements": _placements(run, config.placements),
        "passages": config.passages,
        "bin_size": config.bin_size,
    }
    return Job("capture", content, needs, fixed, label_of(run.grid, run.labels, run.seed))


def divergence_job(run: Run, other: Run, inputs: GivenInputs) -> Job:
    """The job that measures how far a run is from another one."""
    content, needs, fixed = _common_parts(run, None, inputs)
    if other.model:
        needs["other"] = other.model
    else:
        content["other"] = other.name
        fixed["other"] = inputs.digest(other.name)
    return Job("diverge", content, needs, fixed, label_of(run.grid, run.labels, run.seed))


def _common_parts(
    run: Run, benchmark: str | None, inputs: GivenInputs
) -> tuple[dict[str, Any], dict[str, Job], dict[str, str]]:
    """Content, needs and fixed hashes that all measurements of a run have."""
    name = benchmark or run.benchmark
    if name is None:
        raise StudyError(f"model {run.name!r} has no benchmark of its own; name one in the evaluation")
    content, needs, fixed = inputs.model_of(run)
    if run.poisoned_by and name == run.benchmark:  # the rows are those of the run's own benchmark
        needs["poisoned_by"] = run.poisoned_by
    fixed["benchmark"] = inputs.benchmark(name).content_hash()
    return {"benchmark": name, "role": run.role, "seed": run.seed, **content}, needs, fixed


def _placements(run: Run, placements: list[str]) -> list[str]:
    """Each placement once, also where the run's own is one of the others."""
    parsed = [run.trigger.placement if each == OWN else str(Placement.parse(each)) for each in placements]
    return list(dict.fromkeys(parsed))
