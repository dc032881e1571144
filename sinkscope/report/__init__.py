"""The self-contained HTML page of a result directory: `sinkscope report`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sinkscope.errors import OutputError, StudyError
from sinkscope.io.atomic import staging_directory
from sinkscope.io.run_directory import MANIFEST, read_manifest, verify, wrap_read_errors
from sinkscope.report.contents import GENERATOR, Page
from sinkscope.report.of_run import compare_page, evaluate_page, locate_page, probe_page, unlearn_page
from sinkscope.report.of_study import study_page

PAGES: dict[str, Callable[[Path, dict[str, Any]], Page]] = {
    "locate": locate_page,
    "compare": compare_page,
    "unlearn": unlearn_page,
    "evaluate": evaluate_page,
    "audit": probe_page,
    "study": study_page,
}


def write_report(directory: Path, out: Path) -> int:
    """Write the page of `directory` to the file `out`, in place of an older page; returns its size in bytes.

    Raises:
        StudyError: `directory` is not there, or holds no finished results of a kind that has a page.
        OutputError: a file of it was changed or cannot be read, or `out` is something else or cannot be written.
    """
    if not directory.exists():
        raise StudyError(f"{directory} is not there; give a directory that {', '.join(PAGES)} wrote")
    manifest = read_manifest(directory) if directory.is_dir() else None
    if manifest is None or manifest.get("kind") not in PAGES:
        known = ", ".join(PAGES)
        raise StudyError(
            f"{directory} holds no finished results of sinkscope that have a page (no {MANIFEST} of any); give a directory that {known} wrote"
        )
    if out.exists() and not (out.is_file() and _is_page(out)):
        raise OutputError(f"output {out} is there and is no page of sinkscope; choose another with --out")
    if directory.resolve() in Path(os.path.realpath(out)).parents:  # where `resolve` fails at a loop of links
        raise OutputError(
            f"output {out} lies in {directory}, which is to stay as it is; choose another with --out"
        )
    verify(directory, manifest)
    with wrap_read_errors(directory):
        text = PAGES[manifest["kind"]](directory, manifest).html().encode()
    with staging_directory(out, out.absolute().parent) as written:
        (written / out.name).write_bytes(text)
        os.replace(written / out.name, out)
    return len(text)


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return f"content='{GENERATOR}'".encode() in file.read(4096)
