"""The self-contained HTML page of a result directory: `sinkscope report`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sinkscope.errors import OutputError, StudyError
from sinkscope.io.atomic import staging_directory
from sinkscope.io.run_directory import MANIFEST, read_manifest, verify, wrap_read_errors
from sinkscope.report.page import GENERATOR
from sinkscope.report.pages import PAGES


def write_report(directory: Path, out: Path) -> int:
    """Write the page of `directory` to the file `out`, replacing an older page; return its size in bytes.

    No model is loaded.

    Raises:
        StudyError: `directory` does not exist, or holds no complete results of a kind that has a page.
        OutputError: a result file was changed or cannot be read, or `out` cannot be written.
    """
    kinds = ", ".join(PAGES)
    if not directory.exists():
        raise StudyError(f"{directory} does not exist; give a directory that {kinds} wrote")
    manifest = read_manifest(directory) if directory.is_dir() else None
    if manifest is None or manifest.get("kind") not in PAGES:
        raise StudyError(
            f"{directory} holds no complete results that have a page (no {MANIFEST} of such results); "
            f"give a directory that {kinds} wrote"
        )
    if out.exists() and not (out.is_file() and _is_page(out)):
        raise OutputError(f"output {out} exists and is not a page of sinkscope; choose another file")
    if directory.resolve() in Path(os.path.realpath(out)).parents:  # Path.resolve fails at a loop of links
        raise OutputError(f"output {out} is inside {directory}, which must not change; choose another file")
    verify(directory, manifest)
    with wrap_read_errors(directory):
        content = PAGES[manifest["kind"]](directory, manifest).render().encode()
    with staging_directory(out, out.absolute().parent) as staging:
        (staging / out.name).write_bytes(content)
        os.replace(staging / out.name, out)
    return len(content)


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return re.search(rf"content=['\"]{GENERATOR}['\"]".encode(), file.read(4096)) is not None
