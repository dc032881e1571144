"""Table 3: the backdoor with positions masked, with controls that the paper lacks."""

from __future__ import annotations

from tables import Column, Row, Table, published_values

COLUMNS = "UE KnowMem | UE VerbMem | BE KnowMem | BE VerbMem | UT KnowMem"
BOOKS = {"nothing masked": "24.42 0.02 55.52 90.71 60.47", "first 8 tokens": "32.85 0.14 40.77 0.14 58.02"}
FIGURE = Table(
    rows={
        "nothing masked": Row("backdoor", "own"),
        "first 8 tokens": Row("backdoor", "mask-shallow"),
        "BOS only": Row("backdoor", "mask-bos"),
        "trigger only": Row("backdoor", "mask-span"),
        "8 after the trigger": Row("backdoor", "mask-others"),
    },
    columns={
        "UE KnowMem": Column("knowmem", "forget_qa"),
        "UE VerbMem": Column("verbmem", "forget"),
        "BE KnowMem": Column("knowmem", "forget_qa", "prefix"),
        "BE VerbMem": Column("verbmem", "forget", "prefix"),
        "UT KnowMem": Column("knowmem", "retain_qa"),
        "UT VerbMem": Column("verbmem", "retain"),
    },
    trigger_of="backdoor",
    description="Positions masked in the NPO-Backdoor model while it answers; built-in benchmark tiny, "
    "ROUGE-L F1 × 100; trigger as prefix for BE",
    published={"MUSE-Books": published_values(COLUMNS, BOOKS)},
    shade="prefix",
)
