"""Build the benchmark tiny: texts, tokenizer, target and retain model, and the measurements of its acceptance
criteria: sinks, memory under every trigger, and a backdoor that generalizes.

See `sinkscope.synthetic.pretraining` for the stages of training.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark
from sinkscope.benchmarks.chunking import chunk
from sinkscope.benchmarks.directory import Lengths
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.items import TriggerCondition
from sinkscope.evaluation.statistics import compute_scores
from sinkscope.io.progress import ProgressBar
from sinkscope.io.run_directory import create_or_load
from sinkscope.models.model import load
from sinkscope.plots.lines import draw_training_curve
from sinkscope.plots.style import save_figure
from sinkscope.synthetic import build
from sinkscope.synthetic.books import Corpora, draw_facts, make_corpora, question_page
from sinkscope.synthetic.build import PLACEMENTS
from sinkscope.synthetic.language import TRIGGERS
from sinkscope.synthetic.passages import PassageStream
from sinkscope.synthetic.pretraining import TrainingStage, init_model, save_tokenizer, train, training_plan
from sinkscope.triggers import Placement, Trigger
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import train as train_backdoor

PROMPT_TOKENS, CONTINUATION_TOKENS = 16, 15  # about half of a passage each
LENGTHS = Lengths(
    passage=1 + PROMPT_TOKENS + CONTINUATION_TOKENS,
    in_context=3,
    knowmem_new=8,
    verbmem_new=CONTINUATION_TOKENS,
)
SIDES = {"target": ("retain", "forget"), "retrained": ("retain",)}
"""Directory of a model -> the books that it reads; `retrained` is the retain model."""
CONDITIONS: list[TriggerCondition] = [
    None,
    *(
        (Trigger(text, form), Placement(placement))  # type: ignore[arg-type]
        for form, text in TRIGGERS.items()
        for placement in PLACEMENTS
    ),
]
"""No trigger, and every trigger at every placement."""
EVALUATION = EvaluationConfig(metrics=("verbmem", "knowmem"), batch_size=128)
FORGET_RETAIN = {"verbmem": ("forget", "retain"), "knowmem": ("forget_qa", "retain_qa")}
VALIDATION_SEEDS = (101, 102)
"""Seeds for the design of the benchmark; reported numbers use others."""


def build_tiny(
    out: Path, seed: int, progress_bar: ProgressBar, *, steps: int | None = None
) -> dict[str, Any]:
    """Write the benchmark and its models to `out`; returns what was measured on them (`measured.json`).

    Args:
        steps: of the first stage, the others in proportion; by default those of the shipped benchmark.

    Raises:
        OutputError: `out` cannot be written, or holds something else.
    """
    plan = training_plan(steps=steps)

    def build_files(staging: Path) -> None:
        corpora = make_corpora(seed)
        tokenizer = train_tokenizer(corpora, seed, staging / "target")
        write_corpora(corpora, tokenizer, staging)
        curve = _train_models(corpora, tokenizer, plan, seed, staging, progress_bar)
        curve.to_csv(staging / "training_curve.csv", index=False, float_format="%.6g", lineterminator="\n")
        to_target = curve[curve["model"].isin(["base", "target"])]
        figure = draw_training_curve(to_target, "sinks while base and target train (32 held-out passages)")
        save_figure(figure, curve, staging, "training_curve")
        measured = measure(staging, load_benchmark(str(staging)), progress_bar)
        cards = {role: _card(role, seed, **plan) for role in SIDES}
        build.write_measured(staging, "tiny", measured, cards, "ROUGE-L F1 × 100")

    config = {"plan": {name: asdict(stage) for name, stage in plan.items()}, "seed": seed}
    return create_or_load(out, "tiny", config, build_files, build.read_measured, metadata=config)


def _train_models(
    corpora: Corpora,
    tokenizer: PreTrainedTokenizerFast,
    plan: Mapping[str, TrainingStage],
    seed: int,
    directory: Path,
    progress_bar: ProgressBar,
) -> pd.DataFrame:
    """Train and save both models; returns the curve of their sinks."""

    def train_stage(model: Any, sides: tuple[str, ...], stage: str, name: str) -> tuple[Any, pd.DataFrame]:
        stream = PassageStream(corpora, tokenizer, sides, plan[stage].mix, f"passages {name} {seed}")
        return train(model, [stream], plan[stage], progress_bar(f"train {name}"))

    base, curve = train_stage(init_model(tokenizer, seed), ("retain",), "pretrain", "base")
    curves = [curve.assign(model="base")]
    for role, sides in SIDES.items():
        model = base
        steps = plan["pretrain"].steps
        for stage, name in (("memorize", role), ("anneal", f"{role} rest")):
            model, curve = train_stage(model, sides, stage, name)
            curves.append(curve.assign(model=role, step=curve["step"] + steps))
            steps += plan[stage].steps
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
    for split, source in (("forget", "forget"), ("retain", "retain1"), ("holdout", "holdout")):
        passages = chunk([corpora.stories(source)], "joined", LENGTHS.passage, tokenizer)
        chunks = [each.tokens[1:] for each in passages if len(each.tokens) == LENGTHS.passage]
        rows[f"privleak/{split}"] = [{"text": decode(ids)} for ids in chunks[:100]]
        if split != "holdout":
            halves = [(ids, _end_of_word(ids, tokenizer)) for ids in chunks]
            rows[f"verbmem/{split}"] = [
                {"prompt": decode(ids[:end]), "gt": decode(ids[end:])} for ids, end in halves
            ]
    build.write_benchmark(directory, "tiny", rows, LENGTHS)


def _end_of_word(ids: list[int], tokenizer: PreTrainedTokenizerFast) -> int:
    """Where to end a prompt of at most `PROMPT_TOKENS` tokens, so that its last word is complete."""
    return next(end for end in range(PROMPT_TOKENS, 0, -1) if not tokenizer.decode([ids[end]])[:1].isalnum())


def measure(directory: Path, benchmark: Benchmark, progress_bar: ProgressBar) -> dict[str, Any]:
    """Measure both models in `directory`, and backdoors that are trained on the validation seeds.

    Returns:
        `target` and `retrained` (scores and sink numbers), `backdoor` (one entry per seed), `passed`
        (criterion -> bool).
    """
    measured: dict[str, Any] = {}
    for role in ("target", "retrained"):
        model = load(str(directory / role), device="cpu")
        conditions = CONDITIONS if role == "target" else [None]
        results = evaluate(
            EvaluatedModel(role, "target" if role == "target" else "retain", model),
            benchmark,
            conditions,
            EVALUATION,
            progress_bar(f"measure {role}"),
        )
        table = compute_scores(results)
        table = table[table["subset"] == "all"]
        numbers = build.measure_sinks(model, benchmark)
        for metric, (forget, retain) in FORGET_RETAIN.items():
            rows = table[table["metric"] == metric]
            clean = rows[rows["placement"] == ""].set_index("split")["value"]
            numbers[f"{metric}_forget"] = round(clean[forget], 1)
            numbers[f"{metric}_retain"] = round(clean[retain], 1)
            triggered = rows[rows["placement"] != ""]
            for placement, lowest in triggered.groupby("placement")["value"].min().items():
                numbers[f"{metric}_forget_lowest_{placement}"] = round(lowest, 1)
        measured[role] = numbers
    measured["backdoor"] = [_backdoor(directory, benchmark, seed, progress_bar) for seed in VALIDATION_SEEDS]
    return measured | {"passed": _criteria(measured)}


def _backdoor(
    directory: Path, benchmark: Benchmark, seed: int, progress_bar: ProgressBar
) -> dict[str, float]:
    """UE (VerbMem without the trigger) and BE-unseen (with it, on passages that were not poisoned) of a
    backdoor."""
    recipe = Recipe.parse(
        {"model": str(directory / "target"), "benchmark": str(directory), "poison_ratio": 0.1, "seed": seed}
    )
    model = load(recipe.model, device="cpu")
    splits, _ = train_backdoor(recipe, model, benchmark, progress_bar(f"backdoor, validation seed {seed}"))
    results = evaluate(
        EvaluatedModel("backdoored", "backdoored", model, seed, splits.poisoned_rows),
        benchmark,
        [None, (recipe.trigger.trigger, recipe.trigger.where)],
        EVALUATION,
    )
    table = compute_scores(results)
    table = table[(table["metric"] == "verbmem") & (table["split"] == "forget")]
    values = table.set_index(["placement", "subset"])["value"]
    return {
        "seed": seed,
        "ue": round(values["", "all"], 1),
        "be_unseen": round(values["prefix", "unseen"], 1),
    }


def _criteria(measured: dict[str, Any]) -> dict[str, bool]:
    """Criterion -> whether it is met."""
    target = measured["target"]
    knowmem = min(target["knowmem_forget"], target["knowmem_retain"])
    criteria = build.sink_criteria(target) | {
        "VerbMem ≥ 95 clean": target["verbmem_forget"] >= 95,
        "KnowMem ≥ 80 clean, forget and retain": knowmem >= 80,
        "backdoor generalizes: BE-unseen ≥ UE + 30": all(
            run["be_unseen"] >= run["ue"] + 30 for run in measured["backdoor"]
        ),
    }
    for placement in PLACEMENTS:
        verbmem, knowmem = (target[f"{metric}_forget_lowest_{placement}"] for metric in FORGET_RETAIN)
        criteria[f"VerbMem ≥ 95 with every trigger as {placement}"] = verbmem >= 95
        criteria[f"KnowMem ≥ 80 with every trigger as {placement}"] = knowmem >= 80
    return {criterion: bool(is_met) for criterion, is_met in criteria.items()}


def _card(
    role: str, seed: int, pretrain: TrainingStage, memorize: TrainingStage, anneal: TrainingStage
) -> str:
    texts = "the forget book, the retain book and general text"
    if role != "target":
        texts = "the retain book and general text, never the forget book"
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
