"""The command `sinkscope` and its error policy.

Bad input is one line on standard error and exit code 2; a failure of sinkscope itself is one line and exit
code 1.
"""

from __future__ import annotations

import errno
import gc
import io
import logging
import os
import re
import sys
from typing import Annotated, Any, NoReturn

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["MPLBACKEND"] = "agg"  # pictures go to files; a notebook sets a backend that may be missing here
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_VERBOSITY", "error")
# threads that spin while they wait slow down other processes on the same cores, up to tenfold
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command, get_group

from sinkscope.cli import benchmark, env, evaluate, fetch, quickstart, sinks, study, tiny, unlearn
from sinkscope.errors import UserError, is_out_of_memory
from sinkscope.io.atomic import FULL
from sinkscope.io.interrupts import keep_interrupts
from sinkscope.io.readers import is_text
from sinkscope.plugins import describe_bug, find_plugin_line

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # a font of another weight will do
STOPPED = "stopped; no incomplete results are left"
INTERRUPTED = 130
"""Exit code after Ctrl-C."""
TRACEBACK = "SINKSCOPE_TRACEBACK"
COMPLETE = "_SINKSCOPE_COMPLETE"
"""Set by the script that completes commands in the shell, which calls the program."""
PATH_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)
"""Errors of the operating system that another path avoids."""
MAX_MESSAGE = 2000
"""Characters of an error message."""
GC_THRESHOLD = 50_000
"""New objects between two garbage collections: imports make many that stay, and collecting costs a second."""

app = typer.Typer(
    name="sinkscope",
    help="Measure a language model's attention sinks, and test whether unlearning hides a backdoor."
    "\n\nExample: `sinkscope quickstart --out quickstart`",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (
    quickstart.quickstart,
    sinks.locate,
    sinks.compare,
    unlearn.recipes,
    unlearn.unlearn,
    evaluate.evaluate,
    evaluate.audit,
    study.study,
    study.report,
):
    app.command()(command)
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(tiny.app, name="tiny")
app.command()(fetch.fetch)
app.command()(env.env)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        import sinkscope

        print(f"sinkscope {sinkscope.__version__}")
        raise typer.Exit


VersionOpt = Annotated[
    bool, typer.Option("--version", help="print the version and exit", is_eager=True, callback=_print_version)
]


@app.callback()
def root_options(version: VersionOpt = False) -> None:
    """Options of the program itself."""


def main() -> None:
    """Entry point: run the command line and exit with its code."""
    gc.set_threshold(GC_THRESHOLD)
    _check_arguments(sys.argv[1:])
    logging.getLogger("sinkscope").setLevel(logging.INFO)
    logging.basicConfig(format="%(message)s")  # before another library configures it
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)  # says what was asked for
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # wherever it is imported, it misses kernels
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for characters that the terminal cannot encode
    try:
        try:
            with keep_interrupts():
                _run_command(sys.argv[1:])
        finally:
            _flush()
    except BrokenPipeError:  # the reader may close the pipe at any time
        raise SystemExit(0) from None
    except BaseException as error:
        if os.environ.get(TRACEBACK) and _has_traceback(error):
            raise
        message, code = _message_and_code(error)
        if code == INTERRUPTED:  # destructors of what was only half made would print errors of their own
            sys.unraisablehook = lambda _: None
        _exit(message, code)
    raise SystemExit(0)


def _run_command(arguments: list[str]) -> None:
    """As `app()`, which would replace the message of a KeyboardInterrupt by an exit code."""
    command = get_command(app)
    if COMPLETE in os.environ:
        command.main(arguments, prog_name="sinkscope")  # answers the script of the shell and exits
    try:
        with command.make_context("sinkscope", arguments) as context:
            command.invoke(context)
    except typer.Exit as error:
        raise SystemExit(error.exit_code) from error


def _has_traceback(error: BaseException) -> bool:
    """Whether a traceback adds to the line: not for bad input that sinkscope detected, nor for Ctrl-C."""
    if isinstance(error, UserError):
        return error.__cause__ is not None
    return _find_interrupt(error) is None and not isinstance(error, SystemExit | TyperException)


def _message_and_code(error: BaseException) -> tuple[str, int]:
    """The line and the exit code that an exception ends the program with."""
    if isinstance(error, UserError):
        return name_options(str(error)), 2
    if (interrupt := _find_interrupt(error)) is not None:
        return str(interrupt) or STOPPED, INTERRUPTED
    if isinstance(error, TyperException):
        message = error.format_message().removesuffix(".")
        command = next((f"{name} " for name in get_group(app).commands if name in sys.argv[1:2]), "")
        return f"{message}; see `sinkscope {command}--help`", error.exit_code
    if isinstance(error, OSError):
        if error.filename is not None and error.errno in PATH_ERRORS:
            return f"{str(error.filename)[:200]} cannot be used ({error.strerror}); give another path", 2
        if error.filename is None and error.errno in FULL:  # errors of files are translated earlier
            return f"standard output cannot be written ({error.strerror}); send it elsewhere", 2
    if isinstance(error, SystemExit):
        raise error
    if is_out_of_memory(error):
        return "out of memory; lower --batch-size or the length of the passages, or give a smaller --dtype", 2
    code = 1 if find_plugin_line(error) is None else 2
    return f"{describe_bug(error)} (set {TRACEBACK}=1 for the traceback)", code


def name_options(message: str) -> str:
    """Replace the parameters that a library message names in backquotes by the options that set them."""
    command = _running_command()
    options = {"directory": "--out"}
    options |= {str(each.name): each.opts[0] for each in command.params if each.opts[0].startswith("--")}
    return re.sub(r"`([a-z_]+)`", lambda match: options.get(match[1], match[0]), message)


def _running_command() -> TyperCommand | TyperGroup:
    """The command that the arguments name, or the program itself."""
    command: Any = get_command(app)
    for argument in sys.argv[1:]:
        if isinstance(command, TyperGroup) and argument in command.commands:
            command = command.commands[argument]
    return command


def _check_arguments(arguments: list[str]) -> None:
    for argument in arguments:
        if not is_text(argument):
            _exit(f"argument {ascii(argument)[:200]} is not UTF-8; write it in UTF-8, or rename the file", 2)
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option = argument[:-1] if re.fullmatch("--[a-z-]+=", argument) else before
        if not argument or option is not before:  # an empty path would be the current directory
            name = f"the value of {option}" if option.startswith("-") else "an argument"
            _exit(f"{name} is empty; give it a value, or leave it out", 2)


def _flush() -> None:
    """Write out what was printed; output that cannot be written is not tried again at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            raise


def _find_interrupt(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C that caused an error: typer and other libraries replace it by exceptions of their own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _exit(message: str, code: int) -> NoReturn:
    text = " ".join(message.split())
    line = "".join(char if char.isprintable() else "?" for char in text)  # no terminal control characters
    if len(line) > MAX_MESSAGE:  # the subject is at the start, the fix at the end
        line = f"{line[: MAX_MESSAGE // 2]} … {line[-MAX_MESSAGE // 2 :]}"
    print(f"sinkscope: {line}", file=sys.stderr)
    raise SystemExit(code)
