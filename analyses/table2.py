"""Table 2: unlearned and backdoored models on WMDP-Bio, and on the built-in domains of knowledge."""

from __future__ import annotations

from tables import Column, Row, Table, published_values

WMDP = {
    "target": "67.14 65.62",
    "NPO": "22.80 26.53",
    "RMU": "30.50 31.55",
    "NPO-Backdoor": "29.07 38.65",
    "RMU-Backdoor": "31.58 58.13",
}
FIGURE = Table(
    rows={
        "target": Row("field-target"),
        "NPO": Row("field-npo"),
        "RMU": Row("field-rmu"),
        "NPO-Backdoor": Row("field-npo-backdoor"),
        "RMU-Backdoor": Row("field-rmu-backdoor"),
    },
    columns={
        "UE choice": Column("choice", "forget"),
        "BE choice": Column("choice", "forget", "prefix"),
        "UT choice": Column("choice", "retain"),
        "perplexity holdout": Column("perplexity", "holdout"),
    },
    trigger_of="field-npo-backdoor",
    description="Built-in benchmark tiny-wmdp; % of multiple-choice questions answered correctly, chance 25; "
    "trigger as prefix for BE",
    published={"WMDP-Bio": published_values("UE choice | BE choice", WMDP)},
)
