"""The card of a model that ships with the package, from its run and its evaluation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.shipped_sources import SOURCES

from hyenadna.cli.units import bases, duration
from hyenadna.config import ModelConfig
from hyenadna.report.plots import training_curve
from hyenadna.training_config import PretrainConfig

SHOWN_ORDERS: Final = ("0", "2", "5", "8", "10", "11", "12")
EARLIER: Final = Path(__file__).resolve().parents[1] / "docs" / "results" / "results.json"
"""The models of an hour on a core that came before, on the same held-out bases."""
EARLIER_NAMES: Final = {"yeast_R64": "yeast"}

LICENCE: Final = (
    "The weights are ours, under Apache-2.0 as the package. The genomes are reference sequences "
    "without restrictions (INSDC, Ensembl, Genome Reference Consortium); none of them is in the "
    "package."
)


def card_of(name: str, run: Path) -> dict[str, Any]:
    """What `card.json` says. Raises FileNotFoundError where the run was not evaluated."""
    described = json.loads((run / "run.json").read_text())
    trained = [_trained(each) for each in _lineage(run)]
    measured = json.loads((run / "evaluation" / "evaluation.json").read_text())["genomes"]
    total = sum(genome["weight"] for genome in described["genomes"])
    earlier = _earlier()
    return {
        "name": name,
        "parameters": ModelConfig.from_dict(described["model"]).num_parameters(),
        "max_seq_len": described["model"]["max_seq_len"],
        "model": described["model"],
        "runs": trained,
        "steps": sum(each["steps"] for each in trained),
        "tokens": sum(each["tokens"] for each in trained),
        "seconds": sum(each["seconds"] for each in trained),
        "threads": described["threads"],
        "device": described["device"],
        "torch": described["torch"],
        "seed": described["options"]["seed"],
        "licence": LICENCE,
        "data": [
            {
                "genome": genome["name"],
                "what": SOURCES[genome["name"]].what,
                "source": SOURCES[genome["name"]].origin,
                "share": round(genome["weight"] / total, 3),
                "train_bases": genome["bases"]["train"],
                "sha256": genome["digest"],
            }
            for genome in described["genomes"]
        ],
        "genomes": [_measured(row, earlier) for row in measured],
    }


def _lineage(run: Path) -> list[Path]:
    """The run and those that it went on from, the first one first."""
    init = json.loads((run / "run.json").read_text())["init"]
    return [*([] if init is None else _lineage(Path(init))), run]


def _entries(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def _trained(run: Path) -> dict[str, Any]:
    """What one run did: its lengths with the steps at each, bases, seconds, options."""
    described = json.loads((run / "run.json").read_text())
    options = described["options"]
    default = PretrainConfig().to_dict()
    steps = [entry for entry in _entries(run) if "loss" in entry]
    lengths: list[list[int]] = []
    for step in steps:
        if not lengths or lengths[-1][0] != step["length"]:
            lengths.append([step["length"], 0])
        lengths[-1][1] += 1
    return {
        "run": run.name,
        "n_layer": described["model"]["n_layer"],
        "lengths": lengths,
        "steps": len(steps),
        "tokens": steps[-1]["tokens"],
        "seconds": round(sum(step["seconds"] for step in steps)),
        "options": {k: v for k, v in options.items() if v != default[k]},
    }


def _measured(row: Mapping[str, Any], earlier: Mapping[str, float]) -> dict[str, Any]:
    """The figures of one genome."""
    own = row.get("markov_own") or row["markov"]
    both = {f"order {k}": v for k, v in row["markov"].items()} | {
        f"order {k}, this genome alone": v for k, v in own.items()
    }
    best = min(both, key=lambda key: both[key])
    return {
        "genome": row["genome"],
        "part": row["part"],
        "bases": row["bases"],
        "bits_per_base": row["bits_per_base"],
        "best_markov": both[best],
        "best_markov_name": best,
        "markov": row["markov"],
        "markov_own": own,
        "by_context": row["by_context"],
        "earlier": earlier.get(row["genome"]),
    }


def _earlier() -> dict[str, float]:
    """The lowest bits per base of the earlier models, by genome."""
    best: dict[str, float] = {}
    for run in json.loads(EARLIER.read_text()):
        for row in run["genomes"]:
            genome = EARLIER_NAMES.get(row["genome"], row["genome"])
            best[genome] = min(row["bits_per_base"], best.get(genome, 9.0))
    return best


def draw_pictures(name: str, run: Path, folder: Path) -> None:
    """The training curve of all runs and the curves by context, as files of `folder`."""
    entries: list[dict[str, Any]] = []
    for each in _lineage(run):
        before = {
            field: max((entry[field] for entry in entries if field in entry), default=0)
            for field in ("step", "tokens")
        }
        entries += [
            entry | {field: entry[field] + before[field] for field in before if field in entry}
            for entry in _entries(each)
        ]
    training_curve(entries, folder / f"{name}.curve.png")
    for genome in ("human", "yeast"):
        source = run / "evaluation" / f"{genome}.test.png"
        shutil.copyfile(source, folder / f"{name}.{genome}.png")


def card_text(card: Mapping[str, Any]) -> str:
    """The card for people to read, in Markdown."""
    name, model = card["name"], card["model"]
    options = "; ".join(
        ", ".join(f"{key} {value}" for key, value in run["options"].items()) for run in card["runs"]
    )
    lines = [
        f"# {name}",
        "",
        f"A HyenaDNA model of {card['parameters']:,} parameters ({model['n_layer']} layers of "
        f"width {model['d_model']}) that reads up to {card['max_seq_len'] - 2:,} bases and "
        f"predicts the next. Trained by us on small genomes with `hyenadna pretrain`: "
        f"{_trainings(card)}; half of the windows from the other strand; "
        f"{duration(card['seconds'])} of steps on {card['threads']} thread of a {card['device']} "
        f"that did other work besides, torch {card['torch']}, seed {card['seed']}.",
        "",
        "```python",
        "import hyenadna",
        "",
        f'model = hyenadna.load("{name}")  # no network',
        'hidden = model.embed(hyenadna.encode("ACGTACGT"))  # (1, 8, 128)',
        "```",
        "",
        f"The file holds no tables of lags, which follow from its configuration; `hyenadna convert "
        f"{name} OUT` writes them for the published code.",
        "",
        "## How good it is",
        "",
        "Bits per base on bases that were held out, windows overlapping by half; 2 is a fair "
        "four-sided die. Markov models are interpolated, and learned from the same train part on "
        "both strands. Best: the best of all orders up to 12, learned from all genomes together or "
        "from that genome alone. Before: the best of the models of an hour on a core in "
        "docs/results.",
        "",
        "| genome | bases | this model | best Markov | before | "
        + " | ".join(f"Markov {order}" for order in SHOWN_ORDERS)
        + " |",
        "|---|" + "--:|" * (4 + len(SHOWN_ORDERS)),
    ]
    for row in card["genomes"]:
        before = "" if row["earlier"] is None else f"{row['earlier']:.4f}"
        cells = [
            row["genome"],
            f"{row['bases']:,}",
            f"**{row['bits_per_base']:.4f}**",
            f"{row['best_markov']:.4f} ({row['best_markov_name']})",
            before,
            *(f"{row['markov'][order]:.4f}" for order in SHOWN_ORDERS),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *falls_short(card), "", *_by_context(card), "## Data", ""]
    lines += ["Shares are those of the last run.", ""]
    for each in card["data"]:
        lines.append(
            f"- {each['genome']}: {each['what']}. {each['source']}. {each['share']:.0%} of the "
            f"windows, {bases(each['train_bases'])} to train on."
        )
    lines += [
        "",
        "No sequences of labelled tasks were read. Phages were left out: those at hand are near "
        "copies of each other.",
        "",
        f"Options that differ from the defaults: {options}. Without dropout on the token "
        "embeddings. The recipe: `benchmarks/shipped_models.py`.",
        "",
        "## What it is good and bad for",
        "",
        *GOOD_AND_BAD,
        "",
        "## Licence",
        "",
        card["licence"],
        "",
    ]
    return "\n".join(lines)


def _trainings(card: Mapping[str, Any]) -> str:
    """What was trained, run by run."""
    parts: list[str] = []
    longest, blocks = 0, card["runs"][0]["n_layer"]
    for run in card["runs"]:
        lengths = " and ".join(f"{steps:,} of {length:,}" for length, steps in run["lengths"])
        changes = []
        if parts and run["lengths"][-1][0] > longest:
            changes.append("longer")
        if run["n_layer"] > blocks:
            changes.append(f"deeper ({run['n_layer']} layers)")
        begins = f"made {' and '.join(changes)}, " if changes else "again " if parts else ""
        parts.append(f"{begins}{run['steps']:,} steps ({lengths} bases), {bases(run['tokens'])}")
        longest, blocks = run["lengths"][-1][0], run["n_layer"]
    return "; then ".join(parts)


def models_page(cards: Sequence[Mapping[str, Any]]) -> str:
    """The page of all models, in Markdown."""
    lines = [
        "# Models that come with the package",
        "",
        "Small models that `hyenadna.load` and every command find by name, without a network. "
        "Made and measured by `python -m benchmarks.shipped_models`; this page is written by it. "
        "Their cards: "
        + ", ".join(
            f"[{card['name']}](../src/hyenadna/shipped/{card['name']}/README.md)" for card in cards
        )
        + " (also `hyenadna models NAME`).",
        "",
        "```sh",
        "hyenadna embed starter-1k sequences.fa -o rows.npz",
        "hyenadna score starter-16k variants.vcf.gz --genome genome.fa -o scored.vcf.gz",
        "hyenadna finetune starter-1k labelled.csv --out TUNED",
        "hyenadna pretrain genome.fa --init starter-1k --max-seq-len 65538 --out LONGER",
        "```",
        "",
        "Bits per base on bases that were held out, each genome on its own: human chromosome 9 "
        "(its first million), yeast IV and XV, a twentieth of each bacterium, the mitochondria of "
        "mouse and rat. Best Markov: the best of orders 0 to 12, learned from all genomes together "
        "or from that genome alone. Before: the best of our models of an hour on a core "
        "([results](results/README.md)).",
        "",
        "| genome | bases | "
        + " | ".join(card["name"] for card in cards)
        + " | best Markov | before |",
        "|---|--:|" + "--:|" * (len(cards) + 2),
    ]
    for rows in zip(*(card["genomes"] for card in cards), strict=True):
        first = rows[0]
        before = "" if first["earlier"] is None else f"{first['earlier']:.4f}"
        best = min(row["bits_per_base"] for row in rows)
        cells = [
            f"**{row['bits_per_base']:.4f}**"
            if row["bits_per_base"] == best
            else f"{row['bits_per_base']:.4f}"
            for row in rows
        ]
        markov = f"{first['best_markov']:.4f} ({first['best_markov_name']})"
        lines.append(
            f"| {first['genome']} | {first['bases']:,} | {' | '.join(cells)} | {markov} | "
            f"{before} |"
        )
    lines += [""]
    for card in cards:
        lines += [
            f"## {card['name']}",
            "",
            f"{_trainings(card)}; {duration(card['seconds'])} on {card['threads']} "
            f"{'thread' if card['threads'] == 1 else 'threads'} beside other work.",
            "",
            *falls_short(card),
            "",
            f"![training curve](pictures/{card['name']}.curve.png)",
            "",
            f"![bits per base by context, human](pictures/{card['name']}.human.png)",
            "",
        ]
    return "\n".join(lines)


def falls_short(card: Mapping[str, Any]) -> list[str]:
    """Where the model is not the best of those in the table, in a sentence or two."""
    rows = card["genomes"]
    markov = [row["genome"] for row in rows if row["bits_per_base"] >= row["best_markov"]]
    before = [
        row["genome"]
        for row in rows
        if row["earlier"] is not None and row["bits_per_base"] >= row["earlier"]
    ]
    lines = []
    if markov:
        lines.append(f"Not better than the best Markov model on: {', '.join(markov)}.")
    if before:
        lines.append(
            "Not better than the models before, which read yeast alone or five genomes without the "
            f"human one, on: {', '.join(before)}."
        )
    return lines


def _by_context(card: Mapping[str, Any]) -> list[str]:
    """What context is worth, on the genomes of people, yeast and E. coli."""
    shown = [row for row in card["genomes"] if row["genome"] in ("human", "yeast", "ecoli")]
    lines = [
        "By the number of bases before the one predicted:",
        "",
        "| context | " + " | ".join(row["genome"] for row in shown) + " |",
        "|---|" + "--:|" * len(shown),
    ]
    for index, first in enumerate(shown[0]["by_context"]):
        if first["last"] < 15:
            continue
        cells = (f"{row['by_context'][index]['bits_per_base']:.4f}" for row in shown)
        lines.append(f"| {first['first']:,}–{first['last']:,} | " + " | ".join(cells) + " |")
    return [*lines, ""]


GOOD_AND_BAD: Final = (
    "- Good for trying everything in this package at once, for tests and teaching, and as a start "
    "for fine-tuning on small tasks of such genomes.",
    "- It knows codons: in made genes of bacterial words it finds stop codons far less likely than "
    "other changes (`hyenadna demo`). Of the human genome it has read 8 Mb of 3,100: judge no "
    "human variants by it.",
    "- It has seen no plants, insects, worms or viruses.",
    "- Scores are likelihoods, and no evidence about disease.",
)
