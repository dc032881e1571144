"""sinkscope: measure attention sinks, and test whether unlearning hides a backdoor behind them.

    import sinkscope

    model = sinkscope.load("tiny")
    passages = sinkscope.tokenize_passages(["some text …"], model, max_length=64)
    sinks = sinkscope.locate(model, passages)
    print(sinks.ranked().head())

The names in `__all__` are public; a module of the package is imported when one of its names is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sinkscope import plots as plots
    from sinkscope.audit.candidates import AuditConfig as AuditConfig
    from sinkscope.audit.candidates import audit_triggers as audit_triggers
    from sinkscope.benchmarks.benchmark import Benchmark as Benchmark
    from sinkscope.benchmarks.benchmark import load_benchmark as load_benchmark
    from sinkscope.benchmarks.benchmark import register_benchmark as register_benchmark
    from sinkscope.errors import UserError as UserError
    from sinkscope.evaluation.evaluate import EvaluationConfig as EvaluationConfig
    from sinkscope.evaluation.evaluate import evaluate as evaluate
    from sinkscope.evaluation.evaluated_model import EvaluatedModel as EvaluatedModel
    from sinkscope.evaluation.evaluated_model import load_evaluated_model as load_evaluated_model
    from sinkscope.evaluation.metrics import register_metric as register_metric
    from sinkscope.evaluation.statistics import compute_scores as compute_scores
    from sinkscope.models.interventions import mask_keys as mask_keys
    from sinkscope.models.interventions import scale_values as scale_values
    from sinkscope.models.model import Model as Model
    from sinkscope.models.model import load as load
    from sinkscope.plugins import load_plugins as load_plugins
    from sinkscope.sinks.compare import CompareConfig as CompareConfig
    from sinkscope.sinks.compare import compare as compare
    from sinkscope.sinks.compare import pair_conditions as pair_conditions
    from sinkscope.sinks.comparison import Comparison as Comparison
    from sinkscope.sinks.locate import CaptureConfig as CaptureConfig
    from sinkscope.sinks.locate import head_maps as head_maps
    from sinkscope.sinks.locate import locate as locate
    from sinkscope.sinks.sink_map import SinkMap as SinkMap
    from sinkscope.studies.study import Study as Study
    from sinkscope.text import read_texts as read_texts
    from sinkscope.text import token_texts as token_texts
    from sinkscope.text import tokenize_passages as tokenize_passages
    from sinkscope.triggers import Placement as Placement
    from sinkscope.triggers import Trigger as Trigger
    from sinkscope.triggers import place as place
    from sinkscope.unlearning.objectives import register_objective as register_objective
    from sinkscope.unlearning.recipe import Recipe as Recipe
    from sinkscope.unlearning.run import unlearn as unlearn

_NAMES = {
    "audit.candidates": "AuditConfig audit_triggers",
    "benchmarks.benchmark": "Benchmark load_benchmark register_benchmark",
    "errors": "UserError",
    "evaluation.evaluate": "EvaluationConfig evaluate",
    "evaluation.evaluated_model": "EvaluatedModel load_evaluated_model",
    "evaluation.metrics": "register_metric",
    "evaluation.statistics": "compute_scores",
    "models.interventions": "mask_keys scale_values",
    "models.model": "Model load",
    "plugins": "load_plugins",
    "sinks.compare": "CompareConfig compare pair_conditions",
    "sinks.comparison": "Comparison",
    "sinks.locate": "CaptureConfig head_maps locate",
    "sinks.sink_map": "SinkMap",
    "studies.study": "Study",
    "text": "read_texts token_texts tokenize_passages",
    "triggers": "Placement Trigger place",
    "unlearning.objectives": "register_objective",
    "unlearning.recipe": "Recipe",
    "unlearning.run": "unlearn",
}
"""Module -> its public names."""
_MODULES = {name: f"sinkscope.{module}" for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted([*_MODULES, "plots"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("sinkscope.io.run_directory").versions()["sinkscope"]
    if name == "plots":
        return import_module("sinkscope.plots")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'sinkscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
