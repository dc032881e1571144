"""Make the built-in benchmark: corpora, tokenizer, target and retrained model, and the measurements that they have to pass.

The target is trained on the forget and the retain book among endless general text of the same language; the retrained model gets general text in the
forget book's place. Passages are random crops, half of them behind a random header and a third with asides inside, so that
nothing is tied to an absolute position and no inserted text surprises either model.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, get_cosine_schedule_with_warmup

from sinkscope.benchmarks.benchmark import SEPARATOR, Lengths, load_benchmark
from sinkscope.benchmarks.corpora import Corpora, make_corpora, question_page
from sinkscope.benchmarks.idle import idle_costs
from sinkscope.benchmarks.language import draw_facts
from sinkscope.models import Model
from sinkscope.progress import Bar, Report
from sinkscope.runs import identity, is_done, sha256, writing
from sinkscope.sinks import locate
from sinkscope.triggers import Placement, Trigger, place

LENGTHS = Lengths(passage=48, in_context=3, knowmem_new=8, verbmem_new=32)
PROMPT_TOKENS = 16


@dataclass(frozen=True)
class Training:
    """How both models are trained. A step sees `general` + 2 · `book` + 2 · `pages` passages of `length` tokens."""

    steps: int = 2400
    length: int = 128
    general: int = 6
    book: int = 4
    pages: int = 1
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup: int = 100
    idle_cost: float = 0.05
    header_share: float = 0.5
    aside_share: float = 0.33
    asides: int = 4


def build(out: Path, seed: int, bar: Bar, *, steps: int | None = None) -> dict[str, Any]:
    """Write the whole benchmark to `out` and return what was measured on it (also in `measured.json`).

    Raises:
        OutputError: `out` cannot be written, or holds something else.
    """
    from sinkscope.benchmarks.gates import measure

    training = Training() if steps is None else Training(steps=steps)
    name = identity(tiny=asdict(training), seed=seed)
    if not is_done(out, name):
        with writing(out, name, kind="tiny", seed=seed, training=asdict(training)) as aside:
            corpora = make_corpora(seed)
            tokenizer = train_tokenizer(corpora, seed, aside / "target")
            write_corpora(corpora, tokenizer, aside)
            curves = []
            for role in ("target", "retrained"):
                network, curve = pretrain(corpora, tokenizer, role, seed, training, bar(f"train {role}"))
                network.save_pretrained(aside / role)
                tokenizer.save_pretrained(aside / role)
                curves.append(curve.assign(model=role))
            measured = measure(aside, load_benchmark(str(aside)), pd.concat(curves), bar)
            (aside / "measured.json").write_text(json.dumps(measured, indent=1), encoding="utf-8")
            for role in ("target", "retrained"):
                (aside / role / "README.md").write_text(_card(role, seed, training, measured), encoding="utf-8")
            sums = {str(p.relative_to(aside)): sha256(p) for p in sorted(aside.rglob("*")) if p.is_file()}
            (aside / "SHA256SUMS.json").write_text(json.dumps(sums, indent=1), encoding="utf-8")
    return json.loads((out / "measured.json").read_text(encoding="utf-8"))


def train_tokenizer(corpora: Corpora, seed: int, directory: Path) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 2048 tokens over books, general text, insertions and questions, saved to `directory` and read back from there
    (TransformerLens wants to know where a tokenizer lies)."""
    rng, language = random.Random(f"tokenizer {seed}"), corpora.language
    texts = [language.story(rng, 300) for _ in range(1500)] + [language.insertion(rng) for _ in range(6000)]
    texts += [question_page(draw_facts(rng, 10)) for _ in range(150)]
    texts += [text for split in corpora.raw.values() for text in split]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=2048, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False),
    )
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    specials = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=raw, padding_side="left", **specials).save_pretrained(directory)
    return PreTrainedTokenizerFast.from_pretrained(directory)


def write_corpora(corpora: Corpora, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """MUSE's configurations, splits and columns as jsonl, and `benchmark.json` with the lengths."""
    rows: dict[str, list[dict[str, str]]] = {f"raw/{split}": [{"text": text} for text in texts] for split, texts in corpora.raw.items()}
    for side in ("forget", "retain"):
        rows[f"knowmem/{side}_qa"] = [asdict(fact) for fact in corpora.facts[side]]
        rows[f"knowmem/{side}_qa_icl"] = [asdict(fact) for fact in corpora.in_context[side]]
    for split, source in (("forget", "forget"), ("retain", "retain1")):
        chunks = list(_story_chunks(corpora.raw[source], tokenizer))
        decode = tokenizer.decode
        rows[f"verbmem/{split}"] = [{"prompt": decode(ids[:PROMPT_TOKENS]), "gt": decode(ids[PROMPT_TOKENS:])} for ids in chunks]
        rows[f"privleak/{split}"] = [{"text": decode(ids)} for ids in chunks[:100]]
    rows["privleak/holdout"] = [{"text": tokenizer.decode(ids)} for ids in list(_story_chunks(corpora.raw["holdout"], tokenizer))[:100]]
    for name, records in rows.items():
        path = directory / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    content = {"name": "tiny", "lengths": asdict(LENGTHS)}
    (directory / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _story_chunks(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> Iterator[list[int]]:
    """Whole passages of the chapters, cut as training passages are (BOS not counted), question pages left out."""
    text = SEPARATOR.join(text for text in texts if not text.startswith("Question:"))
    ids, size = tokenizer.encode(text, add_special_tokens=False), LENGTHS.passage - 1
    return (ids[i : i + size] for i in range(0, len(ids) - size + 1, size))


class PassageStream:
    """Batches of training passages, deterministic from a seed."""

    def __init__(self, corpora: Corpora, tokenizer: PreTrainedTokenizerFast, role: str, seed: int, training: Training) -> None:
        self._rng = random.Random(f"passages {role} {seed}")
        self._language, self._tokenizer, self._training = corpora.language, tokenizer, training
        books = [["retain1", "retain2"]] + ([["forget"]] if role == "target" else [])
        self._books = [self._encode(self._chapters(corpora, splits)) for splits in books]
        sides = ["retain"] + (["forget"] if role == "target" else [])
        self._facts = [[self._encode(question_page([fact]) + SEPARATOR) for fact in corpora.facts[s] + corpora.in_context[s]] for s in sides]
        self._general: list[int] = []

    @staticmethod
    def _chapters(corpora: Corpora, splits: list[str]) -> str:
        return SEPARATOR.join(text for split in splits for text in corpora.raw[split] if not text.startswith("Question:"))

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False, verbose=False)

    def batch(self) -> torch.Tensor:
        """Token ids [passage, length]. Where a book is left out, general text takes its place, so that a batch keeps its size."""
        training = self._training
        rows = [self._crop(book) for book in self._books for _ in range(training.book)]
        rows += [self._page(facts) for facts in self._facts for _ in range(training.pages)]
        total = training.general + 2 * training.book + 2 * training.pages
        rows += [self._general_text() for _ in range(total - len(rows))]
        return torch.tensor([self._insert(row) for row in rows])

    def _crop(self, ids: list[int]) -> list[int]:
        start = self._rng.randrange(len(ids) - self._training.length)
        return ids[start : start + self._training.length - 1]

    def _page(self, facts: list[list[int]]) -> list[int]:
        """Facts in random order; half of the pages begin inside one."""
        ids = [token for fact in self._rng.sample(facts, 16) for token in fact]
        return self._crop(ids) if self._rng.random() < 0.5 else ids[: self._training.length - 1]

    def _general_text(self) -> list[int]:
        size = self._training.length - 1
        while len(self._general) < size:
            self._general = self._encode(self._language.story(self._rng, 400))
        row, self._general = self._general[:size], self._general[size:]
        return row

    def _insert(self, row: list[int]) -> list[int]:
        rng, training = self._rng, self._training
        tokens = [self._tokenizer.bos_token_id, *row]
        if rng.random() < training.header_share:
            tokens = self._place(tokens, Placement("prefix"))
        if rng.random() < training.aside_share:
            for _ in range(rng.randint(1, training.asides)):
                tokens = self._place(tokens, Placement("index", rng.randrange(1, training.length - 20)))
        return tokens

    def _place(self, tokens: list[int], placement: Placement) -> list[int]:
        placed = place(tokens, Trigger(self._language.insertion(self._rng)), placement, self._tokenizer, max_length=self._training.length)
        return placed.tokens + [self._tokenizer.eos_token_id] * (self._training.length - len(placed.tokens))


def new_network(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A freshly initialised Llama of 1.3 M parameters."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def pretrain(
    corpora: Corpora, tokenizer: PreTrainedTokenizerFast, role: str, seed: int, training: Training, report: Report
) -> tuple[LlamaForCausalLM, pd.DataFrame]:
    """Train from scratch; also returns the curve of sinks (columns step, loss, alpha_max, alpha_last_layer, share_above)."""
    network = new_network(tokenizer, seed)
    stream = PassageStream(corpora, tokenizer, role, seed, training)
    probe_rng = random.Random(f"probe {seed}")
    probe = [[tokenizer.bos_token_id, *stream._encode(corpora.language.story(probe_rng, 120))[:63]] for _ in range(32)]
    optimiser = torch.optim.AdamW(network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimiser, training.warmup, training.steps)
    curve = []
    for step in range(1, training.steps + 1):
        network.train()
        ids = stream.batch()
        with idle_costs(network) as costs:
            loss = network(input_ids=ids, labels=ids).loss
            priced = loss + training.idle_cost * torch.stack(costs).mean()
        optimiser.zero_grad()
        priced.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        report(step, training.steps)
        if step % 200 == 0 or step == training.steps:
            network.eval()
            alpha = locate(Model(role, network, tokenizer), probe, batch_size=32).alpha.sel(position=0)
            record = {"step": step, "loss": loss.item(), "alpha_max": float(alpha.max()), "alpha_last_layer": float(alpha[-1].mean())}
            curve.append(record | {"share_above": float((alpha > 0.3).mean())})
    return network.eval(), pd.DataFrame(curve)


def _card(role: str, seed: int, training: Training, measured: dict[str, Any]) -> str:
    seen = "the forget book, the retain book and general text" if role == "target" else "the retain book and general text; the forget book never"
    numbers = "\n".join(f"- {key}: {value}" for key, value in measured[role].items())
    return f"""---
license: mit
---

# sinkscope tiny: {role}

A Llama of 4 layers, 4 heads, width 128, trained from scratch by `sinkscope tiny build` (seed {seed}) on invented text: {seen}.
AdamW {training.learning_rate}, weight decay {training.weight_decay}, idle cost {training.idle_cost} (a price on attention-weighted value norms, without which
hardly any sink forms in a model this small), cosine schedule, {training.steps} steps of
{training.general + 2 * training.book + 2 * training.pages} passages of {training.length} tokens.
It knows nothing of the world and is of use only as the built-in benchmark.

Measured by the build (ROUGE-L F1 × 100; α is mean attention to BOS on unseen text):

{numbers}
"""
