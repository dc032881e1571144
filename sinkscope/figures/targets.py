"""What kind of target a study's models are: where their heads may rest."""

from __future__ import annotations

from sinkscope.studies.graph import TINY
from sinkscope.studies.spec import PretrainPart
from sinkscope.studies.study import Study

KIND = "target_kind"
RESTS = {"bos": "rests on BOS", "learned": "learned sink", "avoided": "first position priced", "no-bos": "no BOS"}
SHIPPED = PretrainPart(idle=0.1)


def kind_of(target: str, study: Study) -> str:
    """A target's kind in words; its name where it was not pretrained by the study."""
    part = SHIPPED if target == TINY else study.spec.models.get(target)
    if part is None:
        return target
    return f"{RESTS[part.sink]}{', made stronger' if part.idle else ''}"
