"""Table 3: what is left of the backdoor when tokens are hidden from the model, with controls the paper lacks: BOS, the trigger, eight other positions."""

from __future__ import annotations

from sinkscope.figures.table import PREFIX, Column, Row, Table, by_column

COLUMNS = "UE KnowMem | UE VerbMem | BE KnowMem | BE VerbMem | UT KnowMem"
TABLE = Table(
    {
        "nothing hidden": Row("backdoor", "own"),
        "first 8 tokens": Row("backdoor", "mask-shallow"),
        "BOS only": Row("backdoor", "mask-bos"),
        "trigger only": Row("backdoor", "mask-span"),
        "8 behind the trigger": Row("backdoor", "mask-others"),
    },
    {
        "UE KnowMem": Column("knowmem", "forget_qa"),
        "UE VerbMem": Column("verbmem", "forget"),
        "BE KnowMem": Column("knowmem", "forget_qa", PREFIX),
        "BE VerbMem": Column("verbmem", "forget", PREFIX),
        "UT KnowMem": Column("knowmem", "retain_qa"),
        "UT VerbMem": Column("verbmem", "retain"),
    },
    {
        "MUSE-Books": by_column(
            COLUMNS,
            {
                "nothing hidden": "24.42 0.02 55.52 90.71 60.47",
                "first 8 tokens": "32.85 0.14 40.77 0.14 58.02",
            },
        )
    },
    trigger_of="backdoor",
    about="Positions hidden from the NPO-Backdoor model while it answers; built-in benchmark tiny, ROUGE-L F1 × 100; trigger as prefix for BE",
    shade=PREFIX,
)
NEEDS, frame, draw, twin, markdown = TABLE.needs, TABLE.frame, TABLE.draw, TABLE.twin, TABLE.markdown
