"""The errors that are the user's to mend: one type per kind, one line that names the input and the mend."""


def first_line(error: BaseException) -> str:
    """What a library says is wrong, cut short; its type where it says nothing."""
    text = f"no key {error}" if isinstance(error, KeyError) else str(error)
    return next((line.strip()[:200] for line in text.splitlines() if line.strip()), type(error).__name__)


class UserError(ValueError):
    """Bad input. The command line prints the message as one line and exits with 2."""


class TextError(UserError):
    """A text file, or the passages in it, cannot be used."""


class ModelError(UserError):
    """A model or tokenizer cannot be loaded or is not of a kind that can be served."""


class PlacementError(UserError):
    """A trigger or a placement does not fit the passage."""


class RecipeError(UserError):
    """A recipe has an unknown key or an impossible value."""


class BenchmarkError(UserError):
    """A benchmark's files lack a split or a column."""


class OutputError(UserError):
    """An output directory cannot be used or written."""


class StudyError(UserError):
    """A study's specification has an unknown key or an impossible value, or some of its runs failed."""


class PluginError(UserError):
    """A plugin file is missing, or fails while it is executed."""
