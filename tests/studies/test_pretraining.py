"""Targets that a study pretrains: stages that they share, their kinds, and reproducibility."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import GptOssForCausalLM, LlamaForCausalLM

from sinkscope.errors import StudyError
from sinkscope.models.model import Model, load
from sinkscope.studies.jobs import Job, Store, sort_jobs
from sinkscope.studies.run_job import run_job
from sinkscope.studies.spec import Spec
from tests.studies.small import runs

KINDS = {
    "bos": {},
    "learned": {"sink": "learned"},
    "penalized": {"sink": "penalized"},
    "no-bos": {"sink": "no-bos"},
    "both": {"corpora": "both"},
}


def phases(**part: Any) -> list[Job]:
    (run,) = runs(
        models={"m": part}, evaluations={"e": {"metrics": ["verbmem"]}}, grids={"g": {"models": ["m"]}}
    )
    assert run.model is not None and run.role == "target" and run.seed == part.get("seed", 0)
    return sort_jobs([run.model])


def made(jobs: list[Job], directory: Path) -> Model:
    store = Store(directory)
    for job in jobs:
        run_job(job, store)
    return load(str(store.path(jobs[-1])), "cpu")


def test_targets_share_phases_until_they_differ() -> None:
    plain, penalized, other, learned = (
        phases(**part) for part in ({}, {"value_norm_penalty": 0.1}, {"seed": 1}, {"sink": "learned"})
    )
    assert [job.content["stage"] for job in plain] == ["pretrain", "memorize", "anneal"]
    assert [job.key for job in plain[:2]] == [job.key for job in penalized[:2]] and plain[2].key != penalized[
        2
    ].key
    assert [job.content["settings"]["value_norm_penalty"] for job in penalized] == [0.0, 0.0, 0.1]
    assert not {job.key for job in plain} & {job.key for job in other + learned}
    assert {job.content["settings"]["first_token_penalty"] for job in phases(sink="penalized")} == {1.0}
    (both,) = phases(corpora="both")
    assert (
        both.needs == {}
        and len({both.key, phases(corpora="both", seed=1)[0].key, phases(corpora="both", steps=3)[0].key})
        == 3
    )


@pytest.mark.parametrize("name", KINDS)
def test_a_target_is_of_its_kind(name: str, tmp_path: Path) -> None:
    jobs = phases(steps=2, **KINDS[name])
    model = made(jobs, tmp_path / "once")
    assert isinstance(model.hf, GptOssForCausalLM if name == "learned" else LlamaForCausalLM)
    assert (model.tokenizer.bos_token_id is None) == (name == "no-bos")
    begins = model.tokenizer("The old captain")["input_ids"][0] == load("tiny", "cpu").tokenizer.bos_token_id
    assert begins == (name != "no-bos")
    assert model.fingerprint() == made(jobs, tmp_path / "twice").fingerprint()
    assert all(torch.isfinite(parameter).all() for parameter in model.hf.parameters())


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"sink": "learned", "value_norm_penalty": 0.1},
            "a value norm penalty does not fit sink 'learned'; leave out `value_norm_penalty`, "
            "or use sink bos or no-bos",
        ),
        (
            {"sink": "penalized", "value_norm_penalty": 0.1},
            "a value norm penalty does not fit sink 'penalized'",
        ),
        (
            {"corpora": "both", "sink": "no-bos"},
            "starts from a given one; leave out `sink` and `value_norm_penalty`",
        ),
        ({"corpora": "both", "value_norm_penalty": 0.1}, "leave out `sink` and `value_norm_penalty`"),
        ({"sink": "nowhere"}, "must be 'bos', 'learned', 'penalized' or 'no-bos'"),
    ],
)
def test_bad_targets_are_refused(part: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        yaml.safe_dump({"models": {"m": part}, "grids": {"g": {"models": ["m"]}}})
    )
    with pytest.raises(StudyError, match=message):
        Spec.read(tmp_path / "s.yaml")
