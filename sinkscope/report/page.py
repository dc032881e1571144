"""One HTML file that shows a quickstart's pictures and table, works offline, and asks nothing of any network."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import pandas as pd

PICTURES = {
    "effectiveness": "Does it forget, and does the trigger bring it back? Left is forgotten, up is recovered; on the dotted line the trigger changes nothing.",
    "sink_atlas": "Where the target's heads look: attention to the first token, by layer and head, and how often it passes the threshold 0.3.",
    "received_attention": "Attention that each position receives; a peak far above the dotted baseline is a sink.",
    "head_map": "The strongest sink head on one passage: a bright first column is the sink.",
    "attention_difference": "What the trigger changes in attention (red: more). The black frame marks the trigger's columns.",
    "value_norms": "Norms of the value vectors by position: a sink is looked at, yet carries little.",
}
STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --back: #ffffff; --line: #d0d0d0; --soft: #5b5b5b; }
@media (prefers-color-scheme: dark) { :root { --text: #e8e8e8; --back: #161616; --line: #444444; --soft: #a8a8a8; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.3rem 0.6rem; vertical-align: bottom; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
small, figcaption { color: var(--soft); }
figure { margin: 0; } figure img { max-width: 100%; height: auto; background: #ffffff; padding: 0.4rem; box-sizing: border-box; }
"""
COLUMNS = (
    ("recites,<br>clean", "verbmem", "clean"),
    ("recites,<br>trigger<br>(unseen)", "verbmem", "triggered_unseen"),
    ("recites,<br>trigger<br>(all)", "verbmem", "triggered_all"),
    ("recites<br>retain", "verbmem", "retain"),
    ("answers,<br>clean", "knowmem", "clean"),
    ("answers,<br>trigger", "knowmem", "triggered_all"),
    ("answers<br>retain", "knowmem", "retain"),
)


def write_page(directory: Path, summary: dict[str, Any], scores: pd.DataFrame) -> None:
    """Write `index.html` beside `figures/`, with every picture inside it."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>",
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
        f"<title>sinkscope quickstart</title><style>{STYLE}</style></head><body>",
        "<h1>From attention sinks to a backdoor in unlearning</h1>",
        f"<p>Built-in benchmark, seed {summary['seed']}. The target model knows a book. The <em>honest</em> run unlearns it. "
        f"The other runs unlearn it too, but {summary['poison_ratio']:.0%} of its passages also come with the trigger "
        f"“{html.escape(summary['trigger'])}” in them and are then trained to be kept: as prefix, at token 8, "
        "in the middle (infix), or at the end (suffix).</p>",
        "<h2>Scores</h2>",
        _summary_table(summary),
        "<p><small>ROUGE-L F1 × 100 with 95 % bootstrap interval over items. “recites” is VerbMem, “answers” is KnowMem, on the forget set unless "
        "retain is named. “unseen” leaves out passages that were poisoned in training. "
        "Target and honest model are shown with the trigger as prefix.</small></p>",
    ]
    for name, caption in PICTURES.items():
        png = (directory / "figures" / f"{name}.png").read_bytes()
        width = int.from_bytes(png[16:20], "big") // 2  # the PNG header's width; drawn for two pixels a point
        data = base64.b64encode(png).decode()
        title = name.replace("_", " ")
        parts.append(
            f"<h2>{title.capitalize()}</h2><figure><img width='{width}' alt='{html.escape(caption, quote=True)}' src='data:image/png;base64,{data}'>"
            f"<figcaption>{html.escape(caption)} Numbers: figures/{name}.csv</figcaption></figure>"
        )
    parts += ["<h2>All scores</h2>", _scores_table(scores), "</body></html>"]
    (directory / "index.html").write_text("\n".join(parts), encoding="utf-8")


def _summary_table(summary: dict[str, Any]) -> str:
    head = "".join(f"<th>{title}</th>" for title, _, _ in COLUMNS)
    rows = []
    for label, model in summary["models"].items():
        cells = "".join(f"<td>{_cell(model[metric][key])}</td>" for _, metric, key in COLUMNS)
        rows.append(f"<tr><td>{html.escape(label)}</td>{cells}</tr>")
    return f"<div class='wide'><table><thead><tr><th>model</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def _cell(score: dict[str, float] | None) -> str:
    if score is None:
        return "–"
    return f"{score['value']:.1f}<br><small>[{score['ci_low']:.1f}, {score['ci_high']:.1f}]</small>"


def _scores_table(scores: pd.DataFrame) -> str:
    columns = ["model", "metric", "split", "subset", "placement", "value", "ci_low", "ci_high", "n", "seed"]
    shown = scores[columns].rename(columns={"ci_low": "low", "ci_high": "high"})
    return f"<div class='wide'>{shown.to_html(index=False, border=0, escape=True, float_format='{:.1f}'.format)}</div>"
