"""Table 2: unlearned and backdoored models on WMDP-Bio, here on the built-in fields of knowledge."""

from __future__ import annotations

from sinkscope.figures.table import PREFIX, Column, Row, Table, by_column

TABLE = Table(
    {
        "target": Row("field-target"),
        "NPO": Row("field-npo"),
        "RMU": Row("field-rmu"),
        "NPO-Backdoor": Row("field-npo-backdoor"),
        "RMU-Backdoor": Row("field-rmu-backdoor"),
    },
    {
        "UE choice": Column("choice", "forget"),
        "BE choice": Column("choice", "forget", PREFIX),
        "UT choice": Column("choice", "retain"),
        "perplexity holdout": Column("perplexity", "holdout"),
    },
    {
        "WMDP-Bio": by_column(
            "UE choice | BE choice",
            {
                "target": "67.14 65.62",
                "NPO": "22.80 26.53",
                "RMU": "30.50 31.55",
                "NPO-Backdoor": "29.07 38.65",
                "RMU-Backdoor": "31.58 58.13",
            },
        )
    },
    trigger_of="field-npo-backdoor",
    about="Built-in benchmark tiny-wmdp; % of multiple-choice questions right, chance 25; trigger as prefix for BE",
)
NEEDS, frame, draw, twin, markdown = TABLE.needs, TABLE.frame, TABLE.draw, TABLE.twin, TABLE.markdown
