"""Kinds of results: the version that this release reads and writes, and the columns of the tables in them.

A version is raised whenever the files of a kind change, or a default that its configuration hash leaves out.
`run_directory` writes it into `run.json` and refuses any other one. `.docs` shows `to_markdown()`.
"""

from __future__ import annotations

from dataclasses import dataclass

SCORES = "model role benchmark metric split subset trigger placement mask value n ci_low ci_high seed".split()
"""Columns of `scores.parquet`: `value` with its 95 % interval on the metric's scale, from `n` items.

`benchmark` is its name and the first digits of its hash; empty for tasks of lm-eval.
"""
ITEMS = (
    "model role benchmark metric split item poisoned trigger placement trigger_start mask value seed output"
).split()
"""Columns of `items.parquet`: `value` of one item, and the generated `output` or the chosen letter.

`poisoned` is null if unknown, `trigger_start` (a position in the prompt) for clean prompts.
"""
TRAJECTORY = "step metric split subset trigger placement value n ci_low ci_high".split()
"""Columns of `trajectory.parquet`: scores, and attention as means over heads, after so many steps."""
SINK_TOKENS = "position token text kind passages heads layers alpha value_drain".split()
"""Columns of `sink_tokens.parquet`: sink tokens, with mean α and value norm over the passage's median."""
LOCATE = {
    "sink_tokens.parquet": SINK_TOKENS,
    "token_kinds.parquet": "kind tokens share_of_tokens probability".split(),
    "massive_activations.parquet": ("layer largest passage position dimension times_median massive".split()),
    "passage.parquet": "position token text".split(),
    "experts.parquet": "layer expert share share_elsewhere".split(),
}
COMPARISON = {
    "attention.parquet": (
        "layer head position alpha_first alpha_second difference value_norm_first value_norm_second uniform "
        "passages"
    ).split(),
    "maps.parquet": "layer head query key difference trigger_start trigger_stop passages".split(),
    "span_mass.parquet": "layer head span_mass_first span_mass_second difference passages".split(),
    "top1.parquet": "condition position probability passages".split(),
    "passage.parquet": "condition position text".split(),
}
"""Tables of two conditions, `first` and `second`; every difference is second − first."""
CORRELATION = "layer position correlation pairs".split()
CAPTURE = {file: [*columns, "placement"] for file, columns in COMPARISON.items()}


@dataclass(frozen=True)
class Kind:
    """One kind of result: its version, the command that makes it, and its tables with their columns."""

    version: int
    command: str
    tables: dict[str, list[str]]


KINDS = {
    "locate": Kind(5, "sinkscope locate", LOCATE),
    "compare": Kind(6, "sinkscope compare", COMPARISON | {"value_norm_correlation.parquet": CORRELATION}),
    "unlearn": Kind(4, "sinkscope unlearn", {"trajectory.parquet": TRAJECTORY}),
    "evaluate": Kind(5, "sinkscope evaluate", {"scores.parquet": SCORES, "items.parquet": ITEMS}),
    "audit": Kind(4, "sinkscope audit", {}),
    "study": Kind(6, "sinkscope study", {}),
    "tiny": Kind(1, "sinkscope tiny build", {}),
    "tiny-wmdp": Kind(1, "sinkscope tiny build-wmdp", {}),
    # intermediate results in a study's store and in the cache
    "pretrain": Kind(2, "sinkscope study", {}),
    "perturb": Kind(3, "sinkscope study", {}),
    "capture": Kind(6, "sinkscope study", CAPTURE),
    "diverge": Kind(4, "sinkscope study", {"scores.parquet": SCORES, "items.parquet": ITEMS}),
    "references": Kind(3, "sinkscope unlearn", {}),
}


def version_of(kind: str) -> int:
    """The version of a kind of result that this release reads and writes."""
    return KINDS[kind].version


def to_markdown() -> str:
    """All kinds of results with version, command and columns, as a Markdown table."""
    rows = ["| kind | version | made by | tables |", "|---|---|---|---|"]
    for name, kind in KINDS.items():
        tables = "<br>".join(f"`{file}`: {', '.join(columns)}" for file, columns in kind.tables.items())
        rows.append(f"| {name} | {kind.version} | `{kind.command}` | {tables} |")
    return "\n".join(rows) + "\n"
