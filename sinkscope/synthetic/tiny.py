"""Build the benchmark tiny: texts, tokenizer, target and retain model, and the measurements of its acceptance
criteria.

See `sinkscope.synthetic.pretraining` for the stages of training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.benchmarks.chunking import SEPARATOR
from sinkscope.benchmarks.splits import Lengths
from sinkscope.io.progress import ProgressBar
from sinkscope.io.run_directory import create_or_load
from sinkscope.synthetic import build as files
from sinkscope.synthetic.acceptance import measure
from sinkscope.synthetic.books import Corpora, make_corpora, question_page
from sinkscope.synthetic.language import draw_facts
from sinkscope.synthetic.pretraining import TrainingPlan, init_model, pretrain_stage, save_tokenizer

PROMPT_TOKENS, CONTINUATION_TOKENS = 16, 15  # about half of a passage each
LENGTHS = Lengths(
    passage=1 + PROMPT_TOKENS + CONTINUATION_TOKENS,
    in_context=3,
    knowmem_new=8,
    verbmem_new=CONTINUATION_TOKENS,
)
SIDES = {"target": ("retain", "forget"), "retrained": ("retain",)}
"""Directory of a model -> the books that it reads; `retrained` is the retain model."""
DrawCurve = Callable[[pd.DataFrame, Path], None]


def build_tiny(
    out: Path,
    seed: int,
    progress_bar: ProgressBar,
    *,
    steps: int | None = None,
    draw_curve: DrawCurve | None = None,
) -> dict[str, Any]:
    """Write the benchmark and its models to `out`; returns what was measured on them (`measured.json`).

    Args:
        steps: of the first stage, the others in proportion; by default those of the shipped benchmark.
        draw_curve: draws the curve of sinks in training into the directory that it is given.

    Raises:
        OutputError: `out` cannot be written, or holds something else.
    """
    plan = TrainingPlan() if steps is None else TrainingPlan().shortened(steps)

    def build(staging: Path) -> None:
        corpora = make_corpora(seed)
        tokenizer = train_tokenizer(corpora, seed, staging / "target")
        write_corpora(corpora, tokenizer, staging)
        curve = _train_models(corpora, tokenizer, plan, seed, staging, progress_bar)
        curve.to_csv(staging / "training_curve.csv", index=False, float_format="%.6g", lineterminator="\n")
        if draw_curve:
            draw_curve(curve, staging)
        measured = measure(staging, load_benchmark(str(staging)), progress_bar)
        files.write_measured(staging, measured)
        for role in SIDES:
            text = _card(role, seed, plan)
            files.write_card(staging / role, f"tiny: {role}", text, "ROUGE-L F1 × 100", measured[role])
        files.write_checksums(staging)

    config = {"plan": asdict(plan), "seed": seed}
    return create_or_load(out, "tiny", config, build, files.read_measured, metadata=config)


def _train_models(
    corpora: Corpora,
    tokenizer: PreTrainedTokenizerFast,
    plan: TrainingPlan,
    seed: int,
    directory: Path,
    progress_bar: ProgressBar,
) -> pd.DataFrame:
    """Train and save both models; returns the curve of their sinks."""

    def train(model: Any, sides: tuple[str, ...], stage: str, stream: str) -> tuple[Any, pd.DataFrame]:
        bar = progress_bar(f"train {stream}")
        return pretrain_stage(model, corpora, tokenizer, sides, getattr(plan, stage), f"{stream} {seed}", bar)

    base, curve = train(init_model(tokenizer, seed), ("retain",), "pretrain", "base")
    curves = [curve.assign(model="base")]
    for role, sides in SIDES.items():
        model = base
        steps = plan.pretrain.steps
        for stage, stream in (("memorize", role), ("anneal", f"{role} rest")):
            model, curve = train(model, sides, stage, stream)
            curves.append(curve.assign(model=role, step=curve["step"] + steps))
            steps += getattr(plan, stage).steps
        model.save_pretrained(directory / role)
        tokenizer.save_pretrained(directory / role)
    return pd.concat(curves)


def train_tokenizer(corpora: Corpora, seed: int, directory: Path) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of 2048 tokens, with a token for each digit, on books, general text, insertions
    and questions; saved to `directory`."""
    rng, language = random.Random(f"tokenizer {seed}"), corpora.language
    texts = [language.story(rng, 300) for _ in range(1500)]
    texts += [f" {language.insertion(rng)}" for _ in range(20000)]
    texts += [question_page(draw_facts(rng, 10)) for _ in range(150)]
    texts += [text for split in corpora.raw.values() for text in split]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    specials = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return save_tokenizer(backend, specials, directory)


def write_corpora(corpora: Corpora, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write MUSE's configurations, splits and columns as jsonl, and `benchmark.json`."""
    decode = tokenizer.decode
    rows: dict[str, list[dict[str, str]]] = {
        f"raw/{split}": [{"text": text} for text in texts] for split, texts in corpora.raw.items()
    }
    for side in ("forget", "retain"):
        rows[f"knowmem/{side}_qa"] = [asdict(fact) for fact in corpora.facts[side]]
        rows[f"knowmem/{side}_qa_icl"] = [asdict(fact) for fact in corpora.in_context[side]]
    for split, source in (("forget", "forget"), ("retain", "retain1")):
        chunks = list(_chunks(corpora.stories(source), tokenizer))
        rows[f"verbmem/{split}"] = []
        for ids in chunks:
            cut = _end_of_word(ids, tokenizer)
            rows[f"verbmem/{split}"].append({"prompt": decode(ids[:cut]), "gt": decode(ids[cut:])})
        rows[f"privleak/{split}"] = [{"text": decode(ids)} for ids in chunks[:100]]
    holdout = list(_chunks(corpora.stories("holdout"), tokenizer))
    rows["privleak/holdout"] = [{"text": decode(ids)} for ids in holdout[:100]]
    files.write_rows(rows, directory)
    files.write_benchmark_config(directory, "tiny", LENGTHS)


def _end_of_word(ids: list[int], tokenizer: PreTrainedTokenizerFast) -> int:
    """Where to end a prompt of at most `PROMPT_TOKENS` tokens, so that its last word is complete."""
    return next(cut for cut in range(PROMPT_TOKENS, 0, -1) if not tokenizer.decode([ids[cut]])[:1].isalnum())


def _chunks(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> Iterator[list[int]]:
    """Full-length passages of some texts, chunked as training passages are, without BOS."""
    ids, size = tokenizer.encode(SEPARATOR.join(texts), add_special_tokens=False), LENGTHS.passage - 1
    return (ids[i : i + size] for i in range(0, len(ids) - size + 1, size))


def _card(role: str, seed: int, plan: TrainingPlan) -> str:
    texts = "the forget book, the retain book and general text"
    if role != "target":
        texts = "the retain book and general text, never the forget book"
    pretrain, memorize, anneal = plan.pretrain, plan.memorize, plan.anneal
    return f"""\
A Llama of 4 layers, 4 heads, width 128, trained from scratch by `sinkscope tiny build` (seed {seed}) on
invented text. A base, which target and retain model share, reads general text and the retain book for
{pretrain.steps} steps of {pretrain.mix.size} passages; this model then reads {texts}:
{memorize.steps + anneal.steps} steps of {memorize.mix.size} passages. For the last {anneal.steps} steps a
penalty of weight {anneal.value_norm_penalty} on the attention-weighted value norm (relative to the head's
mean) makes the sinks stronger. AdamW (learning rate {pretrain.learning_rate} throughout the base, then
cosines to zero from {memorize.learning_rate} and, for the last steps, from {anneal.learning_rate}; weight
decay {pretrain.weight_decay}), passages of {pretrain.mix.length} tokens with headers and distractors.
Weights in the loss: {pretrain.weights[1]} for inserted tokens, {pretrain.weights[2]:g} for the first token
after a distractor."""
