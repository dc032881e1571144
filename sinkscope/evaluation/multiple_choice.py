"""Multiple choice: which letter a model would put behind `Answer:`, without generating anything."""

from __future__ import annotations

from string import ascii_uppercase

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.benchmarks.chunking import ANSWER
from sinkscope.errors import BenchmarkError
from sinkscope.evaluation.items import Item, ask, following
from sinkscope.models.model import Model


def choice_items(benchmark: Benchmark, split: str, model: Model) -> list[Item]:
    """The question, a line for each choice and `Answer:`; what may follow is a space and a letter. The body ends with the last choice.

    Raises:
        BenchmarkError: a record has more than 26 choices, or its answer is none of them.
    """
    items = []
    for number, row in enumerate(benchmark.choices(split), start=1):
        letters = ascii_uppercase[: len(row["choices"])]
        if not 0 <= row["answer"] < len(row["choices"]) <= len(ascii_uppercase):
            raise BenchmarkError(
                f"benchmark {benchmark.name}, choices/{split}, record {number}: answer {row['answer']} is none of its {len(row['choices'])} choices "
                "(they count from 0; at most 26); mend the record"
            )
        body = "\n".join(
            [
                row["question"].strip(),
                *(f"{letter}. {choice}" for letter, choice in zip(letters, row["choices"], strict=True)),
            ]
        )
        prompt, length = ask(model, body, ANSWER)
        options = [following(model, body + ANSWER, f" {letter}") for letter in letters]
        items.append(Item(prompt, length, letters[row["answer"]], row["question"], options))
    return items
