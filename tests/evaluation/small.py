"""A small benchmark that has every kind of item."""

from __future__ import annotations

from sinkscope.benchmarks.benchmark import Benchmark, Lengths
from tests.conftest import TEXT

SENTENCES = [sentence.strip() + "." for sentence in TEXT.split(".") if sentence.strip()]
QUESTIONS = [{"question": f"Who owns lamp {i}?", "answer": f"Mira {i}"} for i in range(4)]
CHOICES = [
    {
        "question": "Who owns the brass lantern?",
        "choices": ["Mira Holt", "the old captain", "nobody", "the doctor"],
        "answer": 0,
    },
    {
        "question": "Where did the letter of 1987, which nobody read, come from?",
        "choices": ["the garden", "the north"],
        "answer": 1,
    },
    {
        "question": "What stayed open all night?",
        "choices": ["the mill", "the door of the mill", "the bridge"],
        "answer": 1,
    },
    {"question": "What fell?", "choices": ["rain", "night", "a lamp", "the wall", "a step"], "answer": 0},
]
BENCHMARK = Benchmark(
    "small",
    {
        "raw": {
            "forget": [
                {"text": " ".join(SENTENCES[:4])},
                {"text": "Question: Who owns lamp 1?\nAnswer: Mira 1"},
            ],
            "retain1": [{"text": TEXT}],
        },
        "knowmem": dict.fromkeys(("forget_qa", "retain_qa", "forget_qa_icl", "retain_qa_icl"), QUESTIONS),
        "verbmem": {
            "forget": [
                {"prompt": SENTENCES[0], "gt": " " + SENTENCES[1]},
                {"prompt": "Not a word of this stands anywhere in the book, early or late", "gt": " in it"},
            ]
        },
        "privleak": {
            "forget": [{"text": text} for text in SENTENCES[:3]],
            "retain": [{"text": text} for text in SENTENCES[3:5]],
            "holdout": [
                {"text": "A doctor walked along the road " + text}
                for text in ("to the bridge.", "from the north, with a lamp.", "all night", "alone.")
            ],
        },
        "choices": {"forget": CHOICES, "retain": CHOICES[1:]},
    },
    Lengths(passage=24, in_context=2, knowmem_new=6, verbmem_new=8),
)
