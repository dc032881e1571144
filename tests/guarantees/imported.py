"""Imported by the fork server before it forks: everything that commands need.

It uses one thread, because thread pools do not survive a fork.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

# ruff: noqa: F401
import matplotlib.pyplot
import pytest  # the main module of each forked process
import torch
import transformer_lens.model_bridge
import transformers.models.llama.modeling_llama

import sinkscope.audit
import sinkscope.cli
import sinkscope.sinks.compare
import sinkscope.sinks.locate
import sinkscope.studies.study
import sinkscope.unlearning.cost_estimate
from sinkscope.models.model import load

torch.set_num_threads(1)
load("tiny", "cpu")
matplotlib.pyplot.close(matplotlib.pyplot.figure())
