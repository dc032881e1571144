"""Make the built-in benchmark: corpora, tokenizer, target and retrained model, and the measurements that they have to pass.

A base model learns the language from endless general text and the retain book. From it both models go on: the target reads both books
among general text; the retrained model gets general text in the forget book's place. In both an idle price makes the sinks stronger at last.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from sinkscope.benchmarks.benchmark import Lengths, load_benchmark
from sinkscope.benchmarks.chunking import SEPARATOR
from sinkscope.io.progress import ProgressBar
from sinkscope.io.run_directory import checksums, config_hash, create_run, is_complete
from sinkscope.synthetic.books import Corpora, make_corpora, question_page
from sinkscope.synthetic.language import draw_facts
from sinkscope.synthetic.pretraining import Training, init_model, pretrain_stage

PROMPT_TOKENS, CONTINUATION_TOKENS = 16, 15  # about half of a passage each
LENGTHS = Lengths(
    passage=1 + PROMPT_TOKENS + CONTINUATION_TOKENS,
    in_context=3,
    knowmem_new=8,
    verbmem_new=CONTINUATION_TOKENS,
)
SIDES = {"target": ("retain", "forget"), "retrained": ("retain",)}


def build(out: Path, seed: int, progress_bar: ProgressBar, *, steps: int | None = None) -> dict[str, Any]:
    """Write the whole benchmark to `out` and return what was measured on it (also in `measured.json`).

    Raises:
        OutputError: `out` cannot be written, or holds something else.
    """
    from sinkscope.synthetic.acceptance import measure

    training = Training() if steps is None else Training().shortened(steps)
    name = config_hash("tiny", training=asdict(training), seed=seed)
    if not is_complete(out, name):
        with create_run(out, name, kind="tiny", seed=seed, training=asdict(training)) as aside:
            corpora = make_corpora(seed)
            tokenizer = train_tokenizer(corpora, seed, aside / "target")
            write_corpora(corpora, tokenizer, aside)
            blank = init_model(tokenizer, seed)
            base, curve = pretrain_stage(
                blank,
                corpora,
                tokenizer,
                ("retain",),
                training.base,
                f"base {seed}",
                progress_bar("train base"),
            )
            curves = [curve.assign(model="base")]
            for role, sides in SIDES.items():
                network, before = base, training.base.steps
                for name_of, phase in (("", training.books), (" rest", training.rest)):
                    network, curve = pretrain_stage(
                        network,
                        corpora,
                        tokenizer,
                        sides,
                        phase,
                        f"{role}{name_of} {seed}",
                        progress_bar(f"train {role}{name_of}"),
                    )
                    curves.append(curve.assign(model=role, step=curve["step"] + before))
                    before += phase.steps
                network.save_pretrained(aside / role)
                tokenizer.save_pretrained(aside / role)
            measured = measure(aside, load_benchmark(str(aside)), pd.concat(curves), progress_bar)
            (aside / "measured.json").write_text(json.dumps(measured, indent=1), encoding="utf-8")
            for role in SIDES:
                (aside / role / "README.md").write_text(
                    _card(role, seed, training, measured), encoding="utf-8"
                )
            sums = checksums(aside)
            (aside / "SHA256SUMS.json").write_text(json.dumps(sums, indent=1), encoding="utf-8")
    return json.loads((out / "measured.json").read_text(encoding="utf-8"))


def train_tokenizer(corpora: Corpora, seed: int, directory: Path) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 2048 tokens over books, general text, insertions and questions, a token for each digit; saved to `directory` and
    read back from there (TransformerLens wants to know where a tokenizer lies)."""
    rng, language = random.Random(f"tokenizer {seed}"), corpora.language
    texts = [language.story(rng, 300) for _ in range(1500)] + [
        f" {language.insertion(rng)}" for _ in range(20000)
    ]
    texts += [question_page(draw_facts(rng, 10)) for _ in range(150)]
    texts += [text for split in corpora.raw.values() for text in split]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=2048,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    specials = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=raw, padding_side="left", **specials).save_pretrained(directory)
    return PreTrainedTokenizerFast.from_pretrained(directory)


def write_corpora(corpora: Corpora, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """MUSE's configurations, splits and columns as jsonl, and `benchmark.json` with the lengths."""
    rows: dict[str, list[dict[str, str]]] = {
        f"raw/{split}": [{"text": text} for text in texts] for split, texts in corpora.raw.items()
    }
    for side in ("forget", "retain"):
        rows[f"knowmem/{side}_qa"] = [asdict(fact) for fact in corpora.facts[side]]
        rows[f"knowmem/{side}_qa_icl"] = [asdict(fact) for fact in corpora.in_context[side]]
    for split, source in (("forget", "forget"), ("retain", "retain1")):
        chunks = list(_chunks(corpora.stories(source), tokenizer))
        decode = tokenizer.decode
        cuts = [_end_of_word(ids, tokenizer) for ids in chunks]
        rows[f"verbmem/{split}"] = [
            {"prompt": decode(ids[:cut]), "gt": decode(ids[cut:])}
            for ids, cut in zip(chunks, cuts, strict=True)
        ]
        rows[f"privleak/{split}"] = [{"text": decode(ids)} for ids in chunks[:100]]
    rows["privleak/holdout"] = [
        {"text": tokenizer.decode(ids)} for ids in list(_chunks(corpora.stories("holdout"), tokenizer))[:100]
    ]
    for name, records in rows.items():
        path = directory / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8"
        )
    content = {"name": "tiny", "lengths": asdict(LENGTHS)}
    (directory / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _end_of_word(ids: list[int], tokenizer: PreTrainedTokenizerFast) -> int:
    """Where to cut a prompt of at most `PROMPT_TOKENS` tokens, so that it ends with a whole word."""
    return next(cut for cut in range(PROMPT_TOKENS, 0, -1) if not tokenizer.decode([ids[cut]])[:1].isalnum())


def _chunks(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> Iterator[list[int]]:
    """Whole passages of some texts, cut as training passages are (BOS not counted)."""
    ids, size = tokenizer.encode(SEPARATOR.join(texts), add_special_tokens=False), LENGTHS.passage - 1
    return (ids[i : i + size] for i in range(0, len(ids) - size + 1, size))


def _card(role: str, seed: int, training: Training, measured: dict[str, Any]) -> str:
    seen = (
        "the forget book, the retain book and general text"
        if role == "target"
        else "the retain book and general text; the forget book never"
    )
    numbers = "\n".join(f"- {key}: {value}" for key, value in measured[role].items())
    base, books, rest = training.base, training.books, training.rest
    return f"""---
license: mit
---

# sinkscope tiny: {role}

A Llama of 4 layers, 4 heads, width 128, trained from scratch by `sinkscope tiny build` (seed {seed}) on invented text.
A base, which target and retrained model share, reads general text and the retain book for {base.steps} steps of {base.mix.size} passages;
this model then reads {seen}: {books.steps + rest.steps} steps of {books.mix.size} passages.
For the last {rest.steps} steps an idle price of weight {rest.value_norm_penalty} (attention-weighted value norm, relative to the head's mean) makes the sinks stronger.
AdamW (learning rate {base.learning_rate} throughout the base, then cosines to zero from {books.learning_rate} and, for the last steps, from
{rest.learning_rate}; weight decay {base.weight_decay}), passages of {base.mix.length} tokens with headers and asides.
In the loss inserted tokens count {base.weights[1]}, the first token behind an aside {base.weights[2]:g}.
The model knows nothing of the world and is of use only as the built-in benchmark.

Measured by the build (ROUGE-L F1 × 100; α is mean attention to BOS on unseen text):

{numbers}
"""
