"""What the README says of claims is what the tables say; what it links to is there."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from tests.guarantees.readers import READERS
from tests.guarantees.writing import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| (Fig\. \d|Table \d|stability|control|stealth) \| (.+) \| (.+) \| (.+) \|$", README, re.M
)
METRICS = {"recites": "verbmem", "answers": "knowmem", "chooses": "choice"}
FINE = ("share of attention", "probability", "Pearson's r", "nats a token")


def formatted(row: pd.Series) -> str:
    """Effect, interval and verdict: points as whole numbers, other units to two places."""
    digits = 2 if row["unit"] in FINE else 0
    effect, low, high = (
        f"{round(float(row[key]), digits) + 0.0:.{digits}f}" for key in ("effect", "ci_low", "ci_high")
    )  # + 0.0: no -0
    return f"{effect} ({low} to {high}) {row['verdict']}"


@pytest.mark.parametrize(
    ("source", "claim", "contrastive", "published"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS]
)
def test_every_line_of_the_claims_table_is_in_the_csv(
    source: str, claim: str, contrastive: str, published: str
) -> None:
    table = pd.read_csv(ROOT / "figures" / "claims.csv")
    statement, _, word = claim.rpartition(" (")
    metric = METRICS.get(word.rstrip(")"))
    rows = table[(table["source"] == source) & (table["claim"] == (statement if metric else claim))]
    rows = rows[rows["metric"] == metric] if metric else rows
    found = {row["poisoned_originals"]: formatted(row) for _, row in rows.iterrows()}
    assert {"keep": contrastive, "drop": published} == {"keep": "–", "drop": "–"} | found


def test_the_claims_table_leaves_no_source_out() -> None:
    table = pd.read_csv(ROOT / "figures" / "claims.csv")
    assert len(ROWS) > 30 and {row[0] for row in ROWS} == set(table["source"])


LOG = (ROOT / "tests" / "guarantees" / "soak.tsv").read_text(encoding="utf-8")


def test_the_guarantees_have_the_counts_of_the_soak() -> None:
    log = pd.read_csv(StringIO(LOG), sep="\t", comment="#")
    counts = {
        row[0]: (int(row[1].replace(",", "")), int(row[2]))
        for row in re.findall(r"^\| ([a-z ]+) \| .+ \| ([\d,]+) \| (\d+) \|$", README, re.M)
    }
    sums = log.groupby("guarantee")[["count", "failures"]].sum()
    assert counts == {str(name): (int(row["count"]), int(row["failures"])) for name, row in sums.iterrows()}


def test_the_soak_was_one_run_of_all_there_is_to_try() -> None:
    about = re.match(r"# commit ([0-9a-f]{12}), (\d{4}-\d\d-\d\d), (\d+) minutes\n", LOG)
    assert about, "of a commit, without changes to it"
    assert (
        f"{about[3]} minutes on two cores\n([log](tests/guarantees/soak.tsv), commit {about[1]}, {about[2]})."
        in README
    )
    lines = [tuple(line.split("\t")[:2]) for line in LOG.splitlines()[2:]]
    assert sorted(lines) == sorted(
        [
            *(("crash", f"{signal} {name}") for signal in ("SIGKILL", "SIGINT") for name in COMMANDS),
            *(("full disk", name) for name in COMMANDS),
            *(("corruption", f"{what} through commands") for what in ("models", "results")),
            ("checksums", "bits flipped in results"),
            *(("bad input", f"{what} through commands") for what in ("files", "models", "lines of 1 GB")),
            *(("random files", name) for name in READERS),
            *(("concurrency", f"8 processes, one store{killed}") for killed in ("", ", one killed")),
            ("same outputs", "8 processes"),
            ("determinism", "commands in other processes"),
            ("load", "passages"),
            ("size", "layers of 128 heads"),
        ]
    )


@pytest.mark.parametrize("file", ["README.md", "figures/README.md"])
def test_every_file_that_is_linked_is_there(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    assert len(links) > 8 and [link for link in links if not ((ROOT / file).parent / link).exists()] == []
