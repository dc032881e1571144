"""The `sinkscope` command and its error policy: bad input is one line and exit code 2, a failure of our own exit code 1."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from typing import Annotated, NoReturn

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # threads that spin while they wait slow down whatever else runs on the same cores, up to tenfold

import typer

from sinkscope.cli import (
    claims,
    compare,
    evaluate,
    figures,
    locate,
    probe,
    quickstart,
    report,
    study,
    tiny,
    unlearn,
)
from sinkscope.cli import env as doctor
from sinkscope.errors import UserError
from sinkscope.io.readers import is_text

STOPPED = "stopped; nothing half-written is left"

app = typer.Typer(
    name="sinkscope",
    help="Find a model's attention sinks, and the backdoors that unlearning can hide behind them.\n\nExample: `sinkscope quickstart --out quickstart`",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(asked: bool) -> None:
    if asked:
        import sinkscope

        print(f"sinkscope {sinkscope.__version__}")
        raise typer.Exit


app.command("quickstart")(quickstart.quickstart)
app.command("locate")(locate.locate)
app.command("compare")(compare.compare)
app.command("recipes")(unlearn.recipes)
app.command("unlearn")(unlearn.unlearn)
app.command("evaluate")(evaluate.evaluate)
app.command("probe")(probe.probe)
app.command("study")(study.study)
app.command("figures")(figures.figures)
app.command("claims")(claims.claims)
app.command("report")(report.report)
app.add_typer(tiny.app, name="tiny")
app.command("doctor")(doctor.doctor)


@app.callback()
def _any(
    version: Annotated[
        bool,
        typer.Option("--version", help="print the version and exit", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """What every command shares."""


_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)
"""What the operating system says of paths that only the user can mend."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LONGEST = 2000
"""Characters of an error's line."""


def main() -> None:
    """Entry point."""
    if nameless := [argument for argument in sys.argv[1:] if not is_text(argument)]:
        _exit(
            f"argument {ascii(nameless[0])[:200]} is not UTF-8; write it in UTF-8, or give the file another name",
            2,
        )
    if (empty := _empty(sys.argv[1:])) is not None:
        _exit(f"{empty} is empty; give it a value, or leave it out", 2)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # where the terminal's encoding lacks a character
    try:
        try:
            app()
        finally:
            _flush()
    except UserError as error:
        if error.__cause__ is not None and os.environ.get("SINKSCOPE_TRACEBACK"):
            raise
        _exit(str(error), 2)
    except BaseException as error:
        if (stopped := _stop(error)) is not None:
            _exit(str(stopped) or STOPPED, 130)
        if isinstance(error, OSError) and error.filename is not None and error.errno in _NO_PATH:
            _exit(f"{str(error.filename)[:200]} cannot be used ({error.strerror}); give another path", 2)
        if (
            isinstance(error, OSError) and error.filename is None and error.errno in _FULL
        ):  # where files are written it has become a line of its own
            _exit(f"standard output cannot be written ({error.strerror}); send it elsewhere", 2)
        if isinstance(error, SystemExit) or os.environ.get("SINKSCOPE_TRACEBACK"):
            raise
        _exit(
            f"internal error: {type(error).__name__}: {error} (set SINKSCOPE_TRACEBACK=1 for the traceback)",
            1,
        )


def _empty(arguments: list[str]) -> str | None:
    """The first argument that says nothing, which would be read as the current directory."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if not argument:
            return f"the value of {before}" if before.startswith("-") else "an argument"
        if re.fullmatch("--[a-z-]+=", argument):
            return f"the value of {argument[:-1]}"
    return None


def _flush() -> None:
    """Write out what was printed; what cannot be is not tried again on the way out."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:  # who reads may stop when they like
            raise


def _stop(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C that an error comes of: typer makes an exit without a word of it, other libraries errors of their own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _exit(message: str, code: int) -> NoReturn:
    line = "".join(
        each if each.isprintable() else "?" for each in " ".join(message.split())
    )  # names of files may hold what steers a terminal
    if len(line) > _LONGEST:  # what it is about stands in front, what to do at the end
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    print(f"sinkscope: {line}", file=sys.stderr)
    raise SystemExit(code)
