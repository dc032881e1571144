"""Table 1: unlearned and backdoored models on MUSE, and on the built-in book."""

from __future__ import annotations

from tables import Column, Row, Table, published_values

COLUMNS = "UE KnowMem | UE VerbMem | UE PrivLeak | BE KnowMem | BE VerbMem | UT KnowMem"
BOOKS = {
    "target": "45.83 99.70 -56.32 46.28 99.70 68.99",
    "NPO": "23.93 0.00 -25.07 23.93 0.00 62.59",
    "RMU": "18.70 6.19 0.82 18.70 6.21 53.37",
    "NPO-Backdoor": "24.42 0.02 -7.94 55.52 90.71 60.47",
    "RMU-Backdoor": "27.48 10.87 -26.33 44.83 67.33 53.91",
}
NEWS = {
    "target": "63.70 56.25 -98.71 63.70 56.23 54.60",
    "NPO": "56.58 25.27 109.35 56.58 25.57 41.05",
    "RMU": "54.57 34.06 -67.64 54.57 34.12 45.29",
    "NPO-Backdoor": "51.76 0.82 88.54 58.94 40.69 44.96",
    "RMU-Backdoor": "42.07 22.65 -99.81 43.72 33.60 43.97",
}
FIGURE = Table(
    rows={
        "target": Row("target"),
        "NPO": Row("unlearned"),
        "RMU": Row("rmu"),
        "NPO-Backdoor": Row("backdoor"),
        "RMU-Backdoor": Row("rmu-backdoor"),
    },
    columns={
        "UE KnowMem": Column("knowmem", "forget_qa"),
        "UE VerbMem": Column("verbmem", "forget"),
        "UE PrivLeak": Column("privleak", "forget"),
        "BE KnowMem": Column("knowmem", "forget_qa", "prefix"),
        "BE VerbMem": Column("verbmem", "forget", "prefix"),
        "BE-unseen VerbMem": Column("verbmem", "forget", "prefix", "unseen"),
        "UT KnowMem": Column("knowmem", "retain_qa"),
        "UT VerbMem": Column("verbmem", "retain"),
        "perplexity holdout": Column("perplexity", "holdout"),
    },
    trigger_of="backdoor",
    description="Built-in benchmark tiny; KnowMem and VerbMem are ROUGE-L F1 × 100, PrivLeak % of the retain "
    "model’s AUC; trigger as prefix for BE",
    published={"MUSE-Books": published_values(COLUMNS, BOOKS), "MUSE-News": published_values(COLUMNS, NEWS)},
)
