"""Extension: BOS, the sink, masked in training, in evaluation, in both, in neither."""

from __future__ import annotations

from common import PLACEMENT_AXIS
from tables import Column, Row, Table

PLACEMENTS = {"prefix": "prefix", "index:8": "index 8"}
VIEWS = {
    "visible": Row("visible", "own"),
    "masked in evaluation": Row("visible", "masked-bos"),
    "masked in training": Row("masked", "own"),
    "masked in both": Row("masked", "masked-bos"),
}
FIGURE = Table(
    rows={
        f"BOS {view}, {name}": Row(row.grid, row.evaluation, {PLACEMENT_AXIS: placement})
        for view, row in VIEWS.items()
        for placement, name in PLACEMENTS.items()
    },
    columns={
        "UE VerbMem": Column("verbmem", "forget"),
        **{
            f"BE VerbMem, {name}": Column("verbmem", "forget", placement, "unseen")
            for placement, name in PLACEMENTS.items()
        },
        "UT VerbMem": Column("verbmem", "retain"),
    },
    trigger_of="visible",
    description="BOS masked in the NPO-Backdoor model in training and in evaluation; BE-unseen; built-in "
    "benchmark tiny, ROUGE-L F1 × 100",
    shade="prefix",
    merged=dict.fromkeys((f"BE VerbMem, {name}" for name in PLACEMENTS.values()), "BE-unseen VerbMem"),
)
