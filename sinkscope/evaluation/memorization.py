"""VerbMem and KnowMem (MUSE, arXiv 2407.06460): what a model recites and what it answers, by ROUGE-L F1."""

from __future__ import annotations

import re

from rouge_score.rouge_scorer import RougeScorer

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.benchmarks.chunking import ANSWER, format_qa
from sinkscope.errors import BenchmarkError
from sinkscope.evaluation.items import Item, ask, following
from sinkscope.models.model import Model

_ROUGE = RougeScorer(["rougeL"], use_stemmer=False)
_ANSWER_END = re.compile(r"\n\n|\nQuestion|Question:")


def rouge_l(reference: str, text: str) -> float:
    """ROUGE-L F1 in [0, 1], no stemmer."""
    return _ROUGE.score(reference, text)["rougeL"].fmeasure


def verbmem_items(benchmark: Benchmark, split: str, model: Model) -> list[Item]:
    """Prompt, then greedy continuation against the reference truncated to `lengths.verbmem_new` tokens. The body is the whole prompt.

    Raises:
        BenchmarkError: a record has no text to recite.
    """
    items, new = [], benchmark.lengths.verbmem_new
    for number, row in enumerate(benchmark.prompts(split), start=1):
        prompt = model.encode(row["prompt"])
        reference = model.tokenizer.encode(row["gt"], add_special_tokens=False)[:new]
        option = following(model, row["prompt"], row["gt"])[:new]
        if not option:
            raise BenchmarkError(
                f"benchmark {benchmark.name}, verbmem/{split}, record {number} has an empty gt; remove it"
            )
        items.append(
            Item(prompt, len(prompt), model.tokenizer.decode(reference), row["prompt"] + row["gt"], [option])
        )
    return items


def knowmem_items(benchmark: Benchmark, split: str, model: Model) -> list[Item]:
    """`lengths.in_context` solved questions of the same side, then the question. The body ends with the question, before its `Answer:`.

    The published prompt ends in a space; here that space is left to the answer's first token, to which tokenizers attach it.
    """
    shown = "".join(f"{format_qa(row['question'], row['answer'])}\n\n" for row in benchmark.in_context(split))
    items = []
    for row in benchmark.questions(split):
        prompt, body = ask(model, f"{shown}Question: {row['question']}", ANSWER)
        items.append(Item(prompt, body, row["answer"], format_qa(row["question"], row["answer"])))
    return items


def cut_answer(text: str) -> str:
    """The answer alone: the output up to the first blank line or next question."""
    return _ANSWER_END.split(text, maxsplit=1)[0]
