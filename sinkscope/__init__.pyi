"""The public names: type checkers read them here, and `__init__.py` imports each when it is first used."""

from sinkscope import plots as plots
from sinkscope.audit import AuditConfig as AuditConfig
from sinkscope.audit import audit_triggers as audit_triggers
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
from sinkscope.models.attention import mask_keys as mask_keys
from sinkscope.models.attention import scale_values as scale_values
from sinkscope.models.model import Model as Model
from sinkscope.models.model import load as load
from sinkscope.plugins import load_plugins as load_plugins
from sinkscope.sinks.compare import CompareConfig as CompareConfig
from sinkscope.sinks.compare import Comparison as Comparison
from sinkscope.sinks.compare import compare as compare
from sinkscope.sinks.conditions import pair_conditions as pair_conditions
from sinkscope.sinks.locate import CaptureConfig as CaptureConfig
from sinkscope.sinks.locate import attention_scores as attention_scores
from sinkscope.sinks.locate import head_maps as head_maps
from sinkscope.sinks.locate import locate as locate
from sinkscope.sinks.sink_map import SinkMap as SinkMap
from sinkscope.studies.study import Study as Study
from sinkscope.text import token_texts as token_texts
from sinkscope.text import tokenize_passages as tokenize_passages
from sinkscope.text_sources import read_texts as read_texts
from sinkscope.triggers import Placement as Placement
from sinkscope.triggers import Trigger as Trigger
from sinkscope.triggers import place as place
from sinkscope.unlearning.objectives import register_objective as register_objective
from sinkscope.unlearning.recipe import Recipe as Recipe
from sinkscope.unlearning.run import unlearn as unlearn

__version__: str
