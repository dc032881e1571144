"""What kind of target a study's models are: where their heads may rest, and which were one model at first."""

from __future__ import annotations

from sinkscope.studies.graph import TINY
from sinkscope.studies.spec import PretrainConfig
from sinkscope.studies.study import Study

KIND, LINEAGE = "target_kind", "lineage"
RESTS = {"bos": "BOS", "learned": "learned sink", "avoided": "first position priced", "no-bos": "no BOS"}
SHIPPED = PretrainConfig(idle=0.1)


def kind_of(target: str, study: Study) -> str:
    """A target's kind in words; its name where it was not pretrained by the study."""
    part = _part(target, study)
    if part is None:
        return target
    short = f", {part.steps} steps" if part.steps else ""
    return f"{RESTS[part.sink]}{f', idle price {part.idle:g}' if part.idle else ''}{short}"


def lineage_of(target: str, study: Study) -> str:
    """Targets that went through the same first phases have the same; they are not independent."""
    part = _part(target, study)
    return target if part is None else f"{part.sink} {part.seed} {part.steps or ''}".strip()


def _part(target: str, study: Study) -> PretrainConfig | None:
    """How a target was pretrained from scratch; None if it was not."""
    part = SHIPPED if target == TINY else study.spec.models.get(target)
    return None if part is None or part.knows == "both" else part
