"""Objectives: losses as functions `objective(batch, outputs, references) -> terms`, one file each, registered by name."""

from sinkscope.unlearning.objectives.kl import kl
from sinkscope.unlearning.objectives.npo import npo

FORGET = {"npo": npo}
RETAIN = {"kl": kl}
