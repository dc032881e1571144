"""Pages generated from the repository: README, tour, figures, help, public names, schemas.

Links in the pages are relative to the repository, as GitHub needs them; here they become those of the site.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import sinkscope
from sinkscope.schema import to_markdown

ROOT = Path(__file__).parents[1]
TOUR, LOG = "analyses/tour.ipynb", "tests/guarantees/soak.tsv"
EXAMPLE = ROOT / ".docs" / "example" / "index.html"
"""The page of `sinkscope quickstart`, too large for the repository; on the site if it was made."""


@event_priority(100)  # before the plugin looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    pictures = sorted(
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "figures").iterdir()
        if path.suffix in (".png", ".csv", ".md") and path.name != "README.md"
    )
    for path in (TOUR, LOG, *pictures):
        files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
    if EXAMPLE.is_file():
        files.append(File.generated(config, "example/study.html", abs_src_path=str(EXAMPLE)))
    pages = {
        "index.md": _readme(),
        "contributing.md": (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        "commands.md": _commands(),
        "python.md": _public(),
        "schema.md": f"# Results\n\nEvery result is a directory with a `run.json`.\n\n{to_markdown()}",
        "figures/index.md": (ROOT / "figures" / "README.md").read_text(encoding="utf-8"),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    markdown = markdown.replace("](../../", "](").replace("](../.docs/pages/", "](../")
    return markdown.replace("<!-- example -->", _example())


def _readme() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text.replace("](figures/README.md)", "](figures/index.md)").replace("](.docs/pages/", "](")
    return text.replace("](.github/CONTRIBUTING.md)", "](contributing.md)")


def _example() -> str:
    if EXAMPLE.is_file():
        return "**[Open the page](example/study.html)**"
    return "This build of the site does not contain the page itself; below is how to make it."


def _commands() -> str:
    """The help texts as Markdown, by typer."""
    command = [
        sys.executable,
        "-m",
        "typer",
        "sinkscope.cli.main",
        "utils",
        "docs",
        "--name",
        "sinkscope",
        "--title",
        "Commands",
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def _public() -> str:
    names = "\n\n".join(f"::: sinkscope.{name}" for name in sinkscope.__all__)
    return f"# Python\n\nThe public names of `import sinkscope`.\n\n{names}\n"
