"""BOS, the sink, hidden from the model while it is trained, while it is asked, in both, in neither; with the trigger as prefix and further in."""

from __future__ import annotations

from sinkscope.figures.positions import TRAINED
from sinkscope.figures.table import Column, Row, Table

PLACES = {"prefix": "prefix", "index:8": "index 8"}
VIEWS = {
    "in view": Row("visible", "own"),
    "hidden when asked": Row("visible", "hidden-bos"),
    "hidden in training": Row("hidden", "own"),
    "hidden in both": Row("hidden", "hidden-bos"),
}
TABLE = Table(
    {
        f"BOS {view}, {name}": Row(row.grid, row.evaluation, {TRAINED: place})
        for view, row in VIEWS.items()
        for place, name in PLACES.items()
    },
    {
        "UE VerbMem": Column("verbmem", "forget"),
        **{
            f"BE VerbMem, {name}": Column("verbmem", "forget", place, "unseen")
            for place, name in PLACES.items()
        },
        "UT VerbMem": Column("verbmem", "retain"),
    },
    {},
    trigger_of="visible",
    about="BOS hidden from the NPO-Backdoor model in training and when asked; BE-unseen; built-in benchmark tiny, ROUGE-L F1 × 100",
    shade="prefix",
)
NEEDS, frame, draw, twin, markdown = TABLE.needs, TABLE.frame, TABLE.draw, TABLE.twin, TABLE.markdown
