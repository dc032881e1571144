"""The command `sinkscope benchmark check`: what a benchmark holds, and what a model scores on it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sinkscope.cli import options
from sinkscope.cli.console import print_result, progress
from sinkscope.cli.evaluate import print_scores
from sinkscope.cli.options import benchmark_names, model_names
from sinkscope.plugins import load_plugins

app = typer.Typer(
    help="Benchmarks of your own.\n\nExample: `sinkscope benchmark check data/example`", no_args_is_help=True
)
CheckedArg = Annotated[
    str, typer.Argument(help="a directory in MUSE's schema, or a name", autocompletion=benchmark_names)
]
ScoredOpt = Annotated[
    str | None,
    typer.Option(help="a model that is scored before anything is unlearned", autocompletion=model_names),
]


@app.callback()
def group() -> None:
    """Keep `check` a subcommand although it is the only one."""


@app.command()
def check(
    benchmark: CheckedArg,
    model: ScoredOpt = None,
    limit: options.LimitOpt = None,
    batch_size: options.BatchSizeOpt = 32,
    device: options.DeviceOpt = None,
    dtype: options.DtypeOpt = None,
    plugin: options.PluginOpt = None,
    json: options.JsonOpt = False,
) -> None:
    """Read a benchmark, and tell what is in it, what is missing, and how many items each metric gets.

    With a model, every prompt and passage is made with its tokenizer, and it is scored.

    Example: `sinkscope benchmark check data/example`
    """
    load_plugins(plugin or [])
    from sinkscope.benchmarks.benchmark import load_benchmark
    from sinkscope.evaluation.contents import describe_contents
    from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate
    from sinkscope.evaluation.statistics import compute_scores
    from sinkscope.models.model import load

    data = load_benchmark(benchmark)
    loaded = load(model, device, dtype) if model else None
    contents = describe_contents(data, loaded)
    scores = None
    if loaded:
        config = EvaluationConfig(limit=limit, batch_size=batch_size)
        with progress() as progress_bar:
            items = evaluate(loaded, data.limit(limit), config=config, on_progress=progress_bar("evaluate"))
        scores = compute_scores(items)
    if json:
        scored = {} if scores is None else {"scores": scores.to_dict("records")}
        print_result(contents | scored, True)
        return
    _print_contents(contents)
    if scores is not None and loaded:
        print()
        print_scores(scores, {"benchmark": data.describe(), "bos": loaded.begins_with})


def _print_contents(contents: dict[str, Any]) -> None:
    lengths = ", ".join(f"{name} {value}" for name, value in contents["lengths"].items())
    print(f"benchmark {contents['benchmark']}, chunking {contents['chunking']}, lengths: {lengths}")
    for title in ("records", "passages"):
        if title in contents:
            print(f"{title}: " + ", ".join(f"{split} {n}" for split, n in contents[title].items()))
    print(f"absent, and optional: {', '.join(contents['absent']) or 'nothing'}")
    for name, splits in contents["items"].items():
        counts = [f"{split} {'?' if n is None else n}" for split, n in splits.items()]
        unknown = " (passages of text are counted with --model)" if None in splits.values() else ""
        print(f"{name}: {', '.join(counts)} items{unknown}")
    for name, needed in contents["not_measured"].items():
        print(f"{name}: not measured; it needs {' or '.join(needed)}")
