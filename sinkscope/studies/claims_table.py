"""The claims as people read them: in a terminal and in Markdown."""

from __future__ import annotations

import pandas as pd

from sinkscope.studies.claims import ATTENTION, CORRELATION, NATS, PROBABILITY

SIGNS = {"above": "≥", "within": "±", "at most": "<"}
DECIMALS = {ATTENTION: 3, PROBABILITY: 3, CORRELATION: 3, NATS: 3}
NOTE = (
    "Effect with its 95 % interval (crossed bootstrap over seeds and items, widened for few seeds). A claim that an effect is there (≥) is reproduced if the "
    "whole interval is above 0 and the effect at least the margin, not reproduced if the whole interval is below the margin. One of equivalence (±) or of no "
    "harm (<) is reproduced if the whole interval is within or below the margin, not reproduced if none of it is. Contrastive: the clean versions of "
    "poisoned passages stay in the forget set; published: they leave it."
)


def effect(row: pd.Series) -> str:
    """Effect and interval, in the unit's decimals; – where nothing was measured."""
    if pd.isna(row["effect"]):
        return "–"
    digits = DECIMALS.get(row["unit"], 1)
    value, low, high = (f"{row[key]:.{digits}f}" for key in ("effect", "ci_low", "ci_high"))
    return f"{value} ({low} to {high})"


def readable(table: pd.DataFrame) -> str:
    """A line per claim that could be tested; how many could not, and why the first."""
    left, table = table[table["effect"].isna()], table[table["effect"].notna()]
    untested = (
        []
        if left.empty
        else [
            f"{len(left)} claims could not be tested: {left['reason'].iloc[0]}{'; and more' if left['reason'].nunique() > 1 else ''}"
        ]
    )
    if table.empty:
        return untested[0]
    columns = ["source", "claim", "split", "metric", "effect", "unit", "verdict"]
    rows = [
        columns,
        *table.assign(effect=table.apply(effect, axis=1))[columns].astype(str).to_numpy().tolist(),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    counts = table["verdict"].value_counts()
    return "\n".join(
        [
            *(line.rstrip() for line in lines),
            ", ".join(f"{count} {verdict}" for verdict, count in counts.items()),
            *untested,
        ]
    )


def markdown(table: pd.DataFrame) -> str:
    """A row per claim and metric, the two poison splits side by side."""
    lines = [
        "| source | claim | metric | effect, contrastive | verdict | effect, published | verdict | margin | seeds, items |",
        "|---" * 9 + "|",
    ]
    for (source, claim, metric), rows in table.groupby(["source", "claim", "metric"], sort=False):
        cells = []
        for split in ("contrastive", "published"):
            found = rows[rows["split"] == split]
            cells += ["–", "–"] if found.empty else [effect(found.iloc[0]), str(found["verdict"].iloc[0])]
        first = rows.iloc[0]
        n = "–" if rows["seeds"].isna().all() else f"{rows['seeds'].min():.0f}, {rows['items'].min():.0f}"
        margin = f"{SIGNS[first['kind']]} {first['margin']:g} {first['unit']}"
        lines.append(f"| {source} | {claim} | {metric} | {' | '.join(cells)} | {margin} | {n} |")
    return "\n".join([*lines, "", NOTE, ""])
