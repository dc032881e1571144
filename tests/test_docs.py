"""The documentation builds without a warning, and has in it what it promises."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sinkscope
from sinkscope.benchmarks.directory import Settings
from sinkscope.config import Config
from sinkscope.studies.spec import Spec
from sinkscope.unlearning.recipe import Recipe
from tests.cli.test_help import COMMANDS

ROOT = Path(__file__).parents[1]

for tool in ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter"):
    pytest.importorskip(tool, reason="the tools of the extra `docs` are not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        str(ROOT / ".docs" / "mkdocs.yml"),
        "-d",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return out


def _page(site: Path, name: str) -> str:
    return html.unescape((site / name / "index.html").read_text(encoding="utf-8"))


def test_the_readme_is_the_front_page_with_its_pictures(site: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^]]*\]\((figures/[^)]+)\)", text)
    assert len(pictures) > 1
    front = _page(site, "")
    for picture in pictures:
        assert f'src="{picture}"' in front
        assert (site / picture).read_bytes() == (ROOT / picture).read_bytes()
    for title in re.findall(r"^## (.+)$", text, re.M):
        assert title in front


def test_every_public_name_and_every_command_has_its_entry(site: Path) -> None:
    python, commands = _page(site, "python"), _page(site, "commands")
    assert [
        name for name in sinkscope.__all__ if not re.search(rf'id="sinkscope\.([a-z_]+\.)*{name}"', python)
    ] == []
    assert [
        " ".join(path) for path in COMMANDS if f"sinkscope {' '.join(path)}".strip() not in commands
    ] == []


@pytest.mark.parametrize(("page", "model"), [("recipe", Recipe), ("study", Spec), ("benchmarks", Settings)])
def test_every_key_of_a_file_is_on_its_page(site: Path, page: str, model: type[Config]) -> None:
    text = _page(site, page)
    assert f"<!-- {page} -->" not in text
    for name, field in model.model_fields.items():
        assert f"<code>{name}</code>" in text
        assert " ".join(str(field.description).split())[:20] in re.sub(r"<[^>]+>", "", text).replace("`", "")


def test_the_example_is_there_or_how_to_make_it(site: Path) -> None:
    assert ("Open the page" in _page(site, "example")) == (site / "example" / "study.html").is_file()


def test_the_tour_is_there_with_its_pictures(site: Path) -> None:
    assert len(re.findall("<img[^>]*src=.data:image/png;base64,", _page(site, "analyses/tour"))) == 3


def test_the_guide_of_extensions_includes_the_plugins_that_are_tested(site: Path) -> None:
    page = re.sub(r"<[^>]+>", "", _page(site, "extending"))
    for name in ("objective", "metric", "benchmark", "figure"):
        path = ROOT / "tests" / "plugins" / f"{name}.py"
        for line in path.read_text(encoding="utf-8").splitlines():
            assert line.strip() in page, name
