"""VerbMem and KnowMem (MUSE, arXiv 2407.06460): what a model recites and what it answers, by ROUGE-L F1."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rouge_score.rouge_scorer import RougeScorer

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.models import Model

_ROUGE = RougeScorer(["rougeL"], use_stemmer=False)
_ANSWER_END = re.compile(r"\n\n|\nQuestion|Question:")


@dataclass(frozen=True)
class Item:
    """One thing to score: prompt tokens (BOS first), how many of them placement counts in, the reference text, and the benchmark's own text of it."""

    prompt: list[int]
    body: int
    reference: str
    source: str


def rouge_l(reference: str, text: str) -> float:
    """ROUGE-L F1 in [0, 1], no stemmer."""
    return _ROUGE.score(reference, text)["rougeL"].fmeasure


def verbmem_items(benchmark: Benchmark, split: str, model: Model) -> list[Item]:
    """Prompt, then greedy continuation against the reference truncated to `lengths.verbmem_new` tokens. The body is the whole prompt."""
    items = []
    for row in benchmark.prompts(split):
        prompt = model.encode(row["prompt"])
        reference = model.tokenizer.encode(row["gt"], add_special_tokens=False)[: benchmark.lengths.verbmem_new]
        items.append(Item(prompt, len(prompt), model.tokenizer.decode(reference), row["prompt"] + row["gt"]))
    return items


def knowmem_items(benchmark: Benchmark, split: str, model: Model) -> list[Item]:
    """`lengths.in_context` solved questions of the same side, then the question. The body ends with the question, before its `Answer:`.

    The published prompt ends in a space; here that space is left to the answer's first token, to which tokenizers attach it.
    """
    examples = benchmark.questions(f"{split}_icl")[: benchmark.lengths.in_context]
    shown = "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in examples)
    items = []
    for row in benchmark.questions(split):
        body_text = f"{shown}Question: {row['question']}"
        encoded = model.tokenizer(f"{body_text}\nAnswer:", add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        prompt = model.with_bos(encoded["input_ids"])
        tail = sum(stop > len(body_text) for _, stop in encoded["offset_mapping"])
        items.append(Item(prompt, len(prompt) - tail, row["answer"], f"Question: {row['question']}\nAnswer: {row['answer']}"))
    return items


def cut_answer(text: str) -> str:
    """The answer alone: the output up to the first blank line or next question."""
    return _ANSWER_END.split(text, maxsplit=1)[0]
