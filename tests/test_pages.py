"""README and documentation: numbers come from committed tables, links and commands work, words are plain."""

from __future__ import annotations

import re
import runpy
import shlex
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.cli.test_help import COMMANDS
from tests.guarantees.readers import READERS
from tests.guarantees.writing import COMMANDS as WRITING

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "figures/README.md",
    *sorted(f".docs/pages/{path.name}" for path in (ROOT / ".docs/pages").glob("*.md")),
]
TEXT = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
DEFINITIONS = "definitions"
"""Said of a page in `.docs/numbers.yaml` whose numbers are not measured."""
NUMBERS = yaml.safe_load((ROOT / ".docs" / "numbers.yaml").read_text(encoding="utf-8"))
LOG = (ROOT / "tests" / "guarantees" / "soak.tsv").read_text(encoding="utf-8")

CODE = re.compile(r"^```.*?^```|`[^`\n]*`|<!--.*?-->", re.M | re.S)
LINK = re.compile(r"(?<=\])\([^)\s]*\)")
LABEL = re.compile(  # numbers in names: figures, steps, papers, models, columns
    r"(Fig\.|Figure|Tables?|arXiv|et al\.)\s*[\d.]+( to \d+)?|^\d+\. |[A-Za-z]+-\d+\b|[A-Za-z_]+\d+\w*", re.M
)
CAPTIONS = re.compile(r"<!-- captions: .*?<!-- end of captions -->", re.S)
"""Made from the tables; tests/analyses/test_captions.py checks that they are."""
GENERATED = re.compile(r"<!-- generated: .*?<!-- end -->", re.S)
"""Made by `.docs/generate.py`; checked below."""
NUMBER = re.compile(r"[−-]?\d[\d,]*(?:\.\d+)?(?:e[−-]?\d+)?")
DIALECT = set(
    "aside asked told seen shown mine theirs price priced paid honest twin mend attempt idle".split()
)
SYMBOLS = {
    "UE",
    "BE",
    "UT",
    "α",
    "VerbMem",
    "KnowMem",
    "PrivLeak",
    "NPO",
    "RMU",
    "SimNPO",
    "θo",
    "θu",
    "θb",
    "ROUGE-L",
}


def prose(page: str) -> str:
    """A page without code, generated parts, comments and addresses of links; positions of characters stay."""
    text = TEXT[page]
    for pattern in (GENERATED, CODE, LINK):
        text = pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    return text


def flat(text: str) -> str:
    return " ".join(text.replace("*", "").split())


def value(source: dict[str, Any] | float) -> float:
    """The number that a source names: a cell, or a statistic over cells, minus another if it says so."""
    if not isinstance(source, dict):
        return source
    table = pd.read_csv(ROOT / source["csv"])
    for column, wanted in source.get("where", {}).items():
        table = table[table[column].isin(wanted if isinstance(wanted, list) else [wanted])]
    cells = table[source["cell"]]
    assert len(cells) and cells.notna().all(), f"no number at {source}"
    statistic = source.get("statistic", "only")
    if statistic == "only":
        assert cells.nunique() == 1, f"several numbers at {source}"
        result = float(cells.iloc[0])
    else:
        result = float(getattr(cells, statistic)())
    if "minus" in source:
        result -= value(source["minus"])
    return -result if source.get("negate") else result


MEASURED = {page: entries for page, entries in NUMBERS.items() if entries != DEFINITIONS}
ENTRIES = [(page, entry) for page, entries in MEASURED.items() for entry in entries]


@pytest.mark.parametrize(
    ("page", "entry"), ENTRIES, ids=[f"{page}: {entry['says'][:50]}" for page, entry in ENTRIES]
)
def test_a_traced_number_is_that_of_its_table(page: str, entry: dict[str, Any]) -> None:
    assert flat(entry["says"]) in flat(TEXT[page])
    if "literal" in entry:
        return
    stated = [
        number.replace("−", "-").replace(",", "")
        for number in NUMBER.findall(LABEL.sub(" ", CODE.sub(" ", entry["says"])))
    ]
    shared = {
        key: item for key, item in entry.items() if key in ("csv", "where", "cell", "statistic", "scale")
    }
    sources = [merge(shared, source) for source in entry["from"]]
    assert len(stated) == len(sources), stated
    for text, source in zip(stated, sources, strict=True):
        digits = len(text.partition(".")[2])
        exact = value(source)
        assert abs(exact - float(text)) <= 0.5 * 10**-digits + 1e-9, f"{text} is {exact:g}"


def merge(shared: dict[str, Any], source: Any) -> dict[str, Any] | float:
    """A source with what its entry says once for all; a bare text is the column of the cell."""
    if isinstance(source, int | float):
        return source
    source = {"cell": source} if isinstance(source, str) else source
    merged = shared | source | {"where": shared.get("where", {}) | source.get("where", {})}
    if "minus" in source:
        merged["minus"] = merge(
            {key: item for key, item in merged.items() if key != "minus"}, source["minus"]
        )
    return merged


@pytest.mark.parametrize("page", [page for page in PAGES if NUMBERS.get(page) != DEFINITIONS])
def test_no_number_is_untraced(page: str) -> None:
    captions = CAPTIONS.search(TEXT[page])
    text = prose(page)
    if captions:
        text = text[: captions.start()] + text[captions.end() :]
    text = flat(LABEL.sub(lambda match: " " * len(match[0]), text))
    for entry in sorted(NUMBERS.get(page, []), key=lambda entry: -len(entry["says"])):
        says = flat(LABEL.sub(" ", LINK.sub(" ", CODE.sub(" ", entry["says"]))))
        text = text.replace(says, NUMBER.sub("", says))
    untraced = [text[max(match.start() - 40, 0) : match.end() + 25] for match in NUMBER.finditer(text)]
    assert untraced == []


def test_generated_parts_of_pages_are_up_to_date() -> None:
    generate = runpy.run_path(str(ROOT / ".docs" / "generate.py"))
    names = re.findall("<!-- generated: (.+?) -->", "".join(TEXT.values()))
    assert sorted(names) == sorted(generate["sources"]())
    stale = [page for page in PAGES if generate["fill"](TEXT[page]) != TEXT[page]]
    assert stale == [], "run `python .docs/generate.py`"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_linked_is_there(page: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", TEXT[page]) if not link.startswith("http")]
    generated = {"python.md", "commands.md", "schema.md"}
    missing = [link for link in links if not ((ROOT / page).parent / link).exists() and link not in generated]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_a_page_is_one_that_the_program_takes(page: str) -> None:
    text = GENERATED.sub("", TEXT[page])
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    lines = [re.split(" [#>] ?", line)[0].strip() for block in blocks for line in block.splitlines()]
    commands = [
        part.strip() for line in lines for part in line.split("&&") if part.strip().startswith("sinkscope ")
    ]
    commands += [code for code in re.findall(r"`(sinkscope [^`]+)`", text) if "…" not in code]
    for command in commands:
        _, *words = shlex.split(command)
        path: tuple[str, ...] = ()
        while words and (*path, words[0]) in COMMANDS:
            path, words = (*path, words[0]), words[1:]
        assert path, command
        if words:
            COMMANDS[path].make_context(" ".join(path), words)


def test_the_readme_is_short_and_plain() -> None:
    text = TEXT["README.md"]
    assert len(text.splitlines()) <= 150
    paragraphs = re.split(
        r"\n\n|\n(?=[-|])|\|", LINK.sub("", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    )
    sentences = [part for paragraph in paragraphs for part in re.split(r"(?<=[.?:])\s", flat(paragraph))]
    assert [sentence for sentence in sentences if len(sentence.split()) > 30] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_private_words_and_every_symbol_is_defined(page: str) -> None:
    words = re.findall(r"[\w’'-]+", prose(page))
    assert sorted({word.lower() for word in words} & DIALECT) == []
    concepts = TEXT[".docs/pages/concepts.md"]
    assert [symbol for symbol in sorted(SYMBOLS & set(words)) if symbol not in concepts] == []


def test_the_guarantees_have_the_counts_of_the_soak() -> None:
    log = pd.read_csv(StringIO(LOG), sep="\t", comment="#")
    rows = re.findall(
        r"^\| ([a-z ]+) \| .+ \| ([\d,]+) \| (\d+) \|$", TEXT[".docs/pages/guarantees.md"], re.M
    )
    counts = {row[0]: (int(row[1].replace(",", "")), int(row[2])) for row in rows}
    sums = log.groupby("guarantee")[["count", "failures"]].sum()
    assert counts == {str(name): (int(row["count"]), int(row["failures"])) for name, row in sums.iterrows()}


def test_the_soak_was_one_run_of_all_there_is_to_try() -> None:
    about = re.match(r"# commit ([0-9a-f]{12}), (\d{4}-\d\d-\d\d), (\d+) minutes\n", LOG)
    assert about, "of a commit, without changes to it"
    log = "[log](../../tests/guarantees/soak.tsv)"
    claim = f"{about[3]} minutes on two cores ({log}, commit {about[1]}, {about[2]})."
    assert claim in flat(TEXT[".docs/pages/guarantees.md"])
    lines = [tuple(line.split("\t")[:2]) for line in LOG.splitlines()[2:]]
    assert sorted(lines) == sorted(
        [
            *(("crash", f"{signal} {name}") for signal in ("SIGKILL", "SIGINT") for name in WRITING),
            *(("full disk", name) for name in WRITING),
            *(("corruption", f"{what} through commands") for what in ("models", "results")),
            ("checksums", "bits flipped in results"),
            *(("bad input", f"{what} through commands") for what in ("files", "models", "lines of 1 GB")),
            *(("random files", name) for name in READERS),
            *(("concurrency", f"8 processes, one store{killed}") for killed in ("", ", one killed")),
            ("same outputs", "8 processes"),
            ("determinism", "commands in other processes"),
            ("load", "passages"),
            ("size", "layers of 128 heads"),
        ]
    )
