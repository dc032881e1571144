"""The commands of the guides, run in order in an empty directory: they work, and print what the pages show.

`REFRESH_GUIDE=1 python -m pytest tests/test_guide.py` writes what they print into the pages.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sinkscope.benchmarks.benchmark import BENCHMARKS
from sinkscope.evaluation.metrics import METRICS
from sinkscope.plugins import FILE_MODULE
from sinkscope.unlearning.objectives import OBJECTIVES
from tests.commands import run

ROOT = Path(__file__).parents[1]
PAGES = ROOT / ".docs" / "pages"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.M | re.S)
NUMBER = re.compile(r"(?<![\w.])-?\d[\d.,]*\b")
PLUGINS = [path.read_text(encoding="utf-8").strip() for path in (ROOT / "tests" / "plugins").glob("*.py")]
"""Files that `prepare` copies."""
ERROR = re.compile(r"^\| (.+?) \| .+ \|$", re.M)


def words(text: str) -> str:
    """What is printed, without numbers, verdicts and spaces, which differ slightly between machines."""
    return " ".join(re.sub(r"\b(yes|no)\b", "?", NUMBER.sub("#", text)).split())


def prepare(directory: Path) -> None:
    """What a reader has: a checkpoint, one that is saved otherwise, a text, one to forget and one to keep."""
    for name in ("checkpoint", "original"):
        shutil.copytree(ROOT / "data" / "tiny" / "target", directory / name)
    shutil.copy(ROOT / "LICENSE", directory / "notes.txt")
    for split, name in (("forget", "forget"), ("retain1", "keep")):
        lines = (ROOT / "data" / "tiny" / "raw" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines]
        (directory / f"{name}.txt").write_text("\n\n".join(texts), encoding="utf-8")
    for kind, name in (("objective", "losses"), ("metric", "metric"), ("benchmark", "benchmark")):
        shutil.copy(ROOT / "tests" / "plugins" / f"{kind}.py", directory / f"my_{name}.py")


def run_line(line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What one line of a page prints; commands of sinkscope run in this process, which is quicker."""
    if line.startswith("sinkscope "):
        command, _, file = line.partition(" > ")
        code, out, err = run(capsys, monkeypatch, *shlex.split(command)[1:])
        assert code == 0, f"{line}: {err}"
        if file:
            Path(file).write_text(out, encoding="utf-8")
        return "" if file else out
    line = re.sub(
        r"^python ", f"{shlex.quote(sys.executable)} ", line.replace("path/to/sinkscope", str(ROOT))
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(line, shell=True, check=True, capture_output=True, text=True, env=env).stdout


@pytest.fixture(autouse=True)
def no_plugins_are_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plugins of a guide are not left to other tests in this process."""
    before = set(sys.modules)
    for registry in (OBJECTIVES, METRICS, BENCHMARKS):
        monkeypatch.setattr(registry, "_values", dict(registry.items()))
        monkeypatch.setattr(registry, "_hashes", dict(registry._hashes))
    yield
    for name in set(sys.modules) - before:
        if name.startswith(FILE_MODULE):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["guide.md", "own.md", "extending.md"])
def test_the_commands_of_a_guide_print_what_it_shows(
    page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (PAGES / page).read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    if page != "guide.md":
        prepare(tmp_path)
    printed, n_compared, refreshed = "", 0, text
    for language, content in BLOCK.findall(text):
        if language == "text":
            if os.environ.get("REFRESH_GUIDE"):
                head, _, tail = refreshed.partition(f"```text\n{content}```")
                refreshed = f"{head}```TEXT\n{printed}```{tail}"
            else:
                assert words(printed) == words(content)
            n_compared += 1
        elif language == "bash":
            printed = "".join(run_line(line, capsys, monkeypatch) for line in content.splitlines())
        elif named := re.match(r"# (\w+\.\w+)", content):
            (tmp_path / named[1]).write_text(content, encoding="utf-8")
        elif language == "python" and content.strip() not in PLUGINS:
            subprocess.run([sys.executable, "-c", content], check=True, capture_output=True)
    assert n_compared > 1 or page == "extending.md"
    if os.environ.get("REFRESH_GUIDE"):
        (PAGES / page).write_text(refreshed.replace("```TEXT", "```text"), encoding="utf-8")


def test_every_message_in_the_guide_is_one_of_the_program() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "sinkscope").rglob("*.py")]
    texts = [
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    text = "\n".join(texts)
    tables = (PAGES / "guide.md").read_text(encoding="utf-8").split("| message | reason |\n|---|---|\n")[1:]
    messages = [message for table in tables for message in ERROR.findall(table.split("\n\n")[0])]
    assert len(messages) > 10
    parts = [part.strip() for message in messages for part in message.split("…")]
    assert [part for part in parts if part not in text] == []
