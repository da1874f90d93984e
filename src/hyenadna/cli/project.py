"""`hyenadna project`."""

from __future__ import annotations

import csv
import datetime
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from cyclopts import Parameter
from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.console import make_console, make_table
from hyenadna.cli.embed_source import SourceChoice, open_source
from hyenadna.cli.pretrain import comma_list
from hyenadna.cli.process import prepare_process, set_threads
from hyenadna.cli.progress import progress_bar
from hyenadna.cli.units import duration
from hyenadna.errors import InputError

if TYPE_CHECKING:
    from hyenadna.alphabet import Ids
    from hyenadna.infer.embeddings_read import Embeddings
    from hyenadna.infer.projection import Method, Projection
    from hyenadna.report.projection_plots import Colouring
    from hyenadna.train.probe import Folds, ProbeScore

_PICTURES: Final = (".png", ".svg", ".pdf")
_MOST_NAMES: Final = 60
_NO_GROUP: Final = (
    "no --group was given: rows that are near copies of each other, such as transcripts of one "
    "gene, may be on both sides of a fold, which flatters every kind of features"
)


def project(
    embeddings: Path,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    method: str = "pca",
    colour: str | None = None,
    labels: str | None = None,
    coordinates: Path | None = None,
    classify: str | None = None,
    group: str | None = None,
    folds: int = 10,
    trees: int = 100,
    kmer: int = 4,
    sequences: Path | None = None,
    max_rows: int = 20_000,
    seed: int = 0,
    threads: int | None = None,
) -> None:
    """Draw embeddings in two dimensions, and measure how well they tell classes apart.

    With `--classify` a boosted classifier is trained on the embeddings over folds and measured by
    weighted F1, beside the k-mer composition and the length of the same sequences in the same
    folds, and beside the most frequent class.

    Parameters
    ----------
    embeddings
        File of `hyenadna embed`: `.npz`, `.parquet`, `.h5ad` or `.zarr`.
    out
        New picture: `.png`, `.svg` or `.pdf`; or `.html`, a page with all pictures and figures.
    method
        `pca`, `tsne`, `umap`, or several with commas.
    colour
        Column that gives the colours; that of `--classify` when left out.
    labels
        Column of names that are written beside the points, where these are few.
    coordinates
        New table (`.csv` or `.tsv`) of the points, with the columns of the rows.
    classify
        Column of the classes to tell apart.
    group
        Column of groups that stay in one fold, such as the gene of a transcript.
    folds
        Folds of the cross-validation.
    trees
        Trees of the classifier, for each class.
    kmer
        Longest word of the composition, 1 to 6.
    sequences
        Where the sequences are now (FASTA or table), for their composition; where the record of the
        run says when left out.
    max_rows
        Of more rows a random sample is taken.
    seed
        Seed of the sample, t-SNE, UMAP, folds and classifier.
    threads
        CPU threads; all cores when left out.
    """
    prepare_process()
    set_threads(threads)
    from hyenadna.infer.embeddings_read import read_embeddings
    from hyenadna.infer.projection import project as run
    from hyenadna.infer.projection import require_method

    console, begun = make_console(), time.monotonic()
    methods = [require_method(each) for each in comma_list(method)]
    _require_options(out, coordinates, methods, kmer, trees, max_rows, classify is not None)
    if group is not None and classify is None:
        raise InputError("--group keeps rows in one fold; give the classes with --classify")
    found = read_embeddings(embeddings, most=max_rows, seed=seed)
    caveats = _about_rows(found, seed)
    for caveat in caveats:
        console.print(f"note: {caveat}")
    by = colour or classify
    columns = {name: _column(embeddings, found, name) for name in (by, labels, group) if name}
    parts = None if classify is None else _folds(embeddings, found, classify, group, folds, seed)
    if parts is not None:
        for note in parts.notes:
            console.print(f"note: {note}")
        caveats += parts.left_out
    made = []
    for each in methods:
        with console.status(f"{each} of {len(found):,} rows …"):
            made.append(run(found.values, each, seed))
        console.print(f"{each}: {made[-1].note}")
    scores: list[ProbeScore] = []
    if parts is not None:
        if group is None:
            caveats.append(_NO_GROUP)
        scores, more = _classify(embeddings, found, parts, trees, kmer, sequences, seed, console)
        caveats += more
        _print_scores(console, scores, parts)
    result = _Result(
        source=embeddings,
        found=found,
        projections=made,
        colour=by,
        names=None if labels is None else _labels(columns[labels]),
        classified=classify,
        folds=parts,
        scores=scores,
        caveats=caveats,
        settings={
            "method": ",".join(methods),
            "colour": by,
            "classify": classify,
            "group": group,
            "folds": folds if classify else None,
            "trees": trees if classify else None,
            "kmer": kmer if classify else None,
            "max_rows": max_rows,
            "seed": seed,
        },
    )
    if coordinates is not None:
        _write_coordinates(coordinates, found, made)
    written = _write(out, result)
    _record(out, result, begun)
    console.print(f"{', '.join(map(str, written))} in {duration(time.monotonic() - begun)}")


@dataclass(frozen=True, eq=False)
class _Result:
    """What is written."""

    source: Path
    found: Embeddings
    projections: Sequence[Projection]
    colour: str | None
    names: list[str] | None
    classified: str | None
    folds: Folds | None
    scores: Sequence[ProbeScore]
    caveats: list[str]
    settings: dict[str, Any]

    def colours(self) -> Colouring | None:
        """What the colours say."""
        from hyenadna.report.projection_plots import colouring

        if self.colour is None:
            return None
        return colouring(self.colour, self.found.column(self.colour))


def _require_options(
    out: Path,
    coordinates: Path | None,
    methods: Sequence[Method],
    kmer: int,
    trees: int,
    max_rows: int,
    classified: bool,
) -> None:
    """Nothing, where the options have a meaning. Raises InputError otherwise."""
    if not methods:
        raise InputError("--method is empty; give pca, tsne or umap")
    if out.suffix not in (*_PICTURES, ".html"):
        raise InputError(f"{out}: give a name that ends in {', '.join(_PICTURES)} or .html")
    if coordinates is not None and coordinates.suffix not in (".csv", ".tsv"):
        raise InputError(f"{coordinates}: coordinates are written as .csv or .tsv")
    beside = [_confusion_path(out)] if classified and out.suffix != ".html" else []
    for path in [out, *beside, *([coordinates] if coordinates is not None else [])]:
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}; make it first")
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give the name of a file")
        if path.exists():
            raise InputError(f"{path}: exists; remove it, or give another name")
    for name, value, least, most in (
        ("--kmer", kmer, 1, 6), ("--trees", trees, 1, 100_000), ("--max-rows", max_rows, 3, 10**9),
    ):  # fmt: skip
        if not least <= value <= most:
            raise InputError(f"{name} is {value}; it must be {least} to {most:,}")


def _column(path: Path, found: Embeddings, name: str) -> npt.NDArray[Any]:
    try:
        return found.column(name)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _about_rows(found: Embeddings, seed: int) -> list[str]:
    if len(found) == found.in_file:
        return []
    return [
        f"{len(found):,} of {found.in_file:,} rows are looked at, drawn at random with seed {seed} "
        "(--max-rows)"
    ]


def _folds(
    path: Path, found: Embeddings, classify: str, group: str | None, folds: int, seed: int
) -> Folds:
    """Raises InputError for a column that is not there, and for classes that cannot be told."""
    from hyenadna.train.probe import make_folds

    labels = _labels(_column(path, found, classify))
    groups = None if group is None else _labels(_column(path, found, group))
    return make_folds(labels, groups, folds=folds, seed=seed)


def _classify(
    path: Path,
    found: Embeddings,
    parts: Folds,
    trees: int,
    kmer: int,
    sequences: Path | None,
    seed: int,
    console: Console,
) -> tuple[list[ProbeScore], list[str]]:
    """The scores of all features (the embeddings last), and caveats."""
    from hyenadna.train.probe import composition, majority_score, probe

    caveats = []
    folds = parts.count
    features: dict[str, npt.NDArray[np.float32]] = {}
    texts, why = _find_sequences(path, found, sequences)
    if texts is not None:
        chosen = [texts[row] for row in parts.rows]
        lengths = np.array([[len(ids)] for ids in chosen], np.float32)
        features["length alone"] = lengths
        features[f"composition (k 1..{kmer})"] = composition(chosen, kmer)
    else:
        caveats.append(f"no k-mer composition to compare with: {why}")
        console.print(f"note: {caveats[-1]}")
    features["embeddings"] = found.values[parts.rows]
    scores = [majority_score(parts)]
    with progress_bar(console, "classifying") as show:
        total = folds * len(features)
        for number, (name, each) in enumerate(features.items()):

            def told(done: int, _: int, before: int = number * folds) -> None:
                show(before + done, total)

            scores.append(probe(name, each, parts, seed=seed, trees=trees, progress=told))
    return scores, caveats


def _labels(values: npt.NDArray[Any]) -> list[str]:
    """Classes as text; a missing number is none."""
    from hyenadna.report.projection_plots import number_text

    if values.dtype.kind == "f":
        return [number_text(value) for value in values]
    return [str(value).strip() for value in values]


def _find_sequences(
    path: Path, found: Embeddings, given: Path | None
) -> tuple[list[Ids] | None, str]:
    """The sequence of each row, or None and the reason.

    Without a name they are where the record of the run says, and must be those that were embedded,
    to the letter. A file that the user has named may be in another order, or have other columns.

    Raises InputError for a file that the user has named and that does not hold them.
    """
    from hyenadna.data.records import survey_records
    from hyenadna.infer.run_record import read_record

    if found.settings.get("per", "sequence") != "sequence":
        why = f"the rows of {path} are no whole sequences"
        if given is not None:
            raise InputError(f"{why}; leave out --sequences")
        return None, why
    try:
        if given is not None:
            choice = SourceChoice(path=str(given))
        else:
            choice = SourceChoice.restore(read_record(path).inputs.get("source", {}))
            embedded = found.settings.get("sequences")
            now = survey_records(open_source(choice, tiled=False).records).digest
            if embedded is not None and now != embedded:
                raise InputError(f"{choice.path}: has changed since it was embedded")
        return _match(choice, found), ""
    except InputError as error:
        if given is not None:
            raise
        return None, f"{error} (--sequences FILE)"


def _match(choice: SourceChoice, found: Embeddings) -> list[Ids]:
    """Sequences by the number of the row, and where ids do not fit, by id."""
    wanted = found.columns.get("id")
    rows = {int(row): i for i, row in enumerate(found.rows)}
    ordered: list[Ids | None] = [None] * len(found)
    by_id: dict[str, Ids] = {}
    ids = set() if wanted is None else set(wanted.tolist())
    count, fits = 0, True
    for record in open_source(choice, tiled=False).records:
        at = rows.get(count)
        count += 1
        if at is not None:
            ordered[at] = record.tokens(0, record.length)
            fits = fits and (wanted is None or wanted[at] == record.id)
        if record.id in ids:
            by_id[record.id] = record.tokens(0, record.length)
    if fits and count == found.in_file:
        return [each for each in ordered if each is not None]
    if wanted is None or not ids <= by_id.keys():
        raise InputError(
            f"{choice.path}: holds {count:,} sequences, which are not those of the "
            f"{found.in_file:,} rows"
        )
    return [by_id[id] for id in wanted]


def _print_scores(console: Console, scores: Sequence[ProbeScore], folds: Folds) -> None:
    table = make_table(
        f"{len(folds.rows):,} rows, {len(folds.names)} classes, {folds.count} folds",
        "features", "weighted F1", "sd", "lowest", "highest", "macro F1", "accuracy",
    )  # fmt: skip
    for each in scores:
        spread = (each.spread, each.f1.min(), each.f1.max())
        numbers = (each.mean, *spread, each.f1_macro, each.accuracy)
        table.add_row(each.name, *(f"{number:.4f}" for number in numbers))
    console.print(table)


def _write(out: Path, result: _Result) -> list[Path]:
    """Write the picture or page; returns all files written."""
    from hyenadna.infer.projection import NAMES
    from hyenadna.report.classifier_plots import confusion_plot
    from hyenadna.report.plots import save_figure
    from hyenadna.report.project_page import ProjectPage, write_project_page
    from hyenadna.report.projection_plots import scatter_figure

    colours = result.colours()
    if colours is not None and colours.note:
        result.caveats.append(colours.note)
    if result.names is not None and len(result.names) > _MOST_NAMES:
        result.caveats.append(
            f"names are written beside up to {_MOST_NAMES} points; there are {len(result.names):,}"
        )
    if out.suffix == ".html":
        page = ProjectPage(
            title=f"Embeddings: {result.source.name}",
            summary=_summary(result),
            projections=result.projections,
            colours=colours,
            names=result.names,
            classified=result.classified,
            folds=result.folds,
            scores=result.scores,
            settings={**result.settings, **_made_with(result.found)},
            caveats=result.caveats,
            footer=f"hyenadna {__version__}: {_command()}",
        )
        write_project_page(page, out)
        return [out]
    panels = [(NAMES[p.method], p.points, p.axes) for p in result.projections]
    save_figure(scatter_figure(panels, colours, names=result.names), out)
    if result.folds is None:
        return [out]
    beside = _confusion_path(out)
    figure = confusion_plot(result.scores[-1].confusion, result.folds.names)
    save_figure(figure, beside)
    return [out, beside]


def _confusion_path(out: Path) -> Path:
    """The picture of the confusions, beside that of the points."""
    return out.with_name(f"{out.stem}.confusion{out.suffix}")


def _summary(result: _Result) -> str:
    found = result.found
    shown = "" if len(found) == found.in_file else f", of which {len(found):,} are shown"
    model = found.settings.get("model")
    by = f" by {model}" if model else ""
    return f"{found.in_file:,} rows of {found.values.shape[1]} numbers{by}{shown}."


def _made_with(found: Embeddings) -> dict[str, Any]:
    """Settings of the embeddings that a reader of the page wants to know."""
    keys = ("model", "weights", "per", "pool", "layer", "length", "overlap", "bin", "soft_prompt")
    return {
        f"embed: {key}": found.settings[key] for key in keys if found.settings.get(key) is not None
    }


def _write_coordinates(path: Path, found: Embeddings, made: Sequence[Projection]) -> None:
    beside = path.with_name(f".{path.name}.part")
    header = [f"{each.method}_{axis}" for each in made for axis in (1, 2)]
    points = np.concatenate([each.points for each in made], axis=1)
    try:
        with beside.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(
                stream, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n"
            )
            writer.writerow(["row", *found.columns, *header])
            for i in range(len(found)):
                said = [column[i] for column in found.columns.values()]
                numbers = [f"{number:.6g}" for number in points[i]]
                writer.writerow([int(found.rows[i]), *said, *numbers])
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _record(out: Path, result: _Result, begun: float) -> None:
    """Say beside the picture what it shows and how it was made."""
    from hyenadna.infer.run_record import RunRecord, write_record

    found = result.found
    figures: dict[str, Any] = {
        "rows": found.in_file,
        "rows_shown": len(found),
        "seconds": time.monotonic() - begun,
    }
    for each in result.projections:
        figures[each.method] = each.note
    for score in result.scores:
        figures[f"weighted F1, {score.name}"] = score.mean
        figures[f"sd over folds, {score.name}"] = score.spread
        figures[f"macro F1, {score.name}"] = score.f1_macro
    now = datetime.datetime.now(datetime.UTC).astimezone()
    write_record(
        out,
        RunRecord(
            verb="project",
            command=_command(),
            hyenadna=__version__,
            made=now.isoformat(timespec="seconds"),
            model={
                "name": found.settings.get("model"),
                "weights": found.settings.get("weights"),
                "width": found.values.shape[1],
            },
            inputs={"embeddings": str(result.source)},
            settings=result.settings,
            figures=figures,
            caveats=tuple(result.caveats),
        ),
    )


def _command() -> str:
    return shlex.join(["hyenadna", *sys.argv[1:]])
