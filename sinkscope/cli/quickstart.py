"""`sinkscope quickstart`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from sinkscope.cli.console import print_result, progress, stderr


def quickstart(
    out: Annotated[Path, typer.Option(help="directory to write results, pictures and index.html to")] = Path(
        "quickstart"
    ),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="seed of poisoning and training")] = 0,
    json: Annotated[bool, typer.Option(help="print one JSON object")] = False,
) -> None:
    """The whole story on the built-in benchmark, in minutes on two cores: sinks, honest unlearning, backdoors at four placements.

    Example: `sinkscope quickstart --out quickstart`
    """
    from sinkscope.quickstart import quickstart as run

    with progress() as bar:
        summary = run(out, seed, bar)
    if json:
        print_result(summary | {"out": str(out)}, True)
        return
    stderr.print(_table(summary))
    stderr.print(
        "Scores are ROUGE-L × 100 on the book to forget: low is forgotten, high is remembered. “unseen” are passages that never carried "
        "the trigger in training: a high score there means the trigger works as a switch. “retain” is the book to keep. Target and honest are "
        "shown with the trigger as prefix. α of BOS is the mean attention to the first token.",
        highlight=False,
    )
    print(f"open {out / 'index.html'}")


def _table(summary: dict[str, Any]) -> Table:
    from sinkscope.quickstart.summary import SHOWN

    title = f"Trigger “{summary['trigger']}”, {summary['poison_ratio']:.0%} of passages poisoned, seed {summary['seed']}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0)  # fits 80 columns
    table.add_column("model", no_wrap=True)
    for title in SHOWN:
        table.add_column(title.replace(", ", "\n"), justify="right", no_wrap=True)
    table.add_column("α of\nBOS", justify="right", no_wrap=True)
    for label, model in summary["models"].items():
        values = [model[metric][key] for metric, key in SHOWN.values()]
        shown = [f"{value['value']:.0f}" if value else "–" for value in values]
        table.add_row(label, *shown, f"{model['sinks']['first_position_alpha']:.2f}")
    return table
