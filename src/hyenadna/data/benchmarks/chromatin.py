"""Chromatin profiles: 919 marks of a stretch of human DNA (the DeepSEA data), in two layouts.

    DATA/train_hg19_coords_targets.csv, val_..., test_...   coordinates and y_*, and a FASTA
    DATA/train.mat, valid.mat, test.mat                     sequences of 1,000 bases, one-hot

Coordinates: columns Chr_No (counted from 0: 0 is chr1), Start and End (0-based, half open, 1,000
bases on hg19), and one column of 0/1 or True/False for each mark. The windows are widened about
their middles to any length and read from the genome on demand; past the end of a chromosome stands
N. The name of the file says the assembly, and the file is never lifted over here.

Matrices: `trainxdata` (rows, 4, 1000) and `traindata` (rows, 919), transposed in a MATLAB 7.3 file.
Letters of the one-hot axis are A, G, C, T, in this order. The published files hold each sequence
twice, the second half being the reverse complements of the first; one of the two is read.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import A, C, G, Ids, N, T, reverse_complement_ids
from hyenadna.data.benchmarks.remote import UCSC, RemoteFile
from hyenadna.data.benchmarks.suite import BenchmarkTask, Suite, find_task
from hyenadna.data.genome_windows import ContigSource, GenomeWindows, WindowedData
from hyenadna.data.labelled_data import LabelledData, Task, split_named
from hyenadna.data.tables import Table, open_table
from hyenadna.data.text_files import suffix_of
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome, GenomeReader

LABELS: Final = 919
WINDOW: Final = 1000
GROUPS: Final = ("DHS", "TF", "HM")
_BY_POSITION: Final = (("DHS", 125), ("TF", 690), ("HM", 104))
_TASKS: Final = {"1k": 1024, "8k": 8192}
_COORDINATES: Final = ("Chr_No", "Start", "End")
_HISTONE: Final = re.compile(r"H\d[A-Z]?(K\d+|[A-Z]\d*)?(me\d|ac|ub)?|H2AZ|H2A\.?Z", re.IGNORECASE)
_MAT_LETTERS: Final = np.array([A, G, C, T], dtype=np.uint8)
_ROWS_AT_ONCE: Final = 1 << 14
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_MATRICES: Final = (("train", "train"), ("valid", "valid"), ("test", "test"))

Bools = npt.NDArray[np.bool_]
Block = Callable[[slice], npt.NDArray[Any]]


def list_tasks() -> tuple[BenchmarkTask, ...]:
    """The two window lengths of the paper."""
    return tuple(
        BenchmarkTask(
            name=name, kind="labels", outputs=LABELS, length=length, metric="auroc",
            train=2_200_000, test=227_512,
        )
        for name, length in _TASKS.items()
    )  # fmt: skip


def task_length(task: str) -> int:
    """Bases of a window: of a task (`8k`), or of an even number (`4096`).

    Raises InputError for other text, and for a number that is odd or 0: the window is widened on
    both sides alike.
    """
    if not task.isdigit():
        find_task(list_tasks(), task, "chromatin")
    length = _TASKS.get(task) or int(task)
    if length < 2 or length % 2:
        raise InputError(f"chromatin: a window of {length} bases; it must be even, at least 2")
    return length


def load(
    task: str,
    data_dir: str | Path,
    *,
    genome: str | Path | GenomeReader | None = None,
) -> LabelledData:
    """Chromatin profiles of a folder: windows over a genome, or the sequences of the matrices.

    task: `1k`, `8k` or an even number of bases; matrices are 1,000 bases whatever it says. genome:
    the FASTA that the coordinates are on; a FASTA file in the folder when left out.

    Raises InputError where neither layout is found, and for files that are not as told above.
    """
    length, folder = task_length(task), Path(data_dir)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that holds the files")
    tables = sorted(p for p in folder.iterdir() if "coords_targets" in p.name)
    if tables:
        return _from_coordinates(task, folder, tables, length, genome)
    matrices = [(s, folder / f"{stem}.mat") for stem, s in _MATRICES]
    matrices = [(split, path) for split, path in matrices if path.is_file()]
    if matrices:
        return _from_matrices(task, matrices)
    raise InputError(
        f"{folder}: holds neither *_coords_targets.csv nor train.mat, valid.mat or test.mat; "
        "see where_from for the steps"
    )


def label_groups(names: Sequence[str]) -> tuple[str, ...]:
    """DHS, TF or HM of each label: by `cell|assay|treatment` names, else by place among 919.

    A factor is whatever is neither DNase nor a histone mark. Where the names do not say, the
    published order holds: 125 DHS, 690 TF, 104 HM.

    Raises InputError for names that do not say and are not 919.
    """
    assays = [name.removeprefix("y_").split("|") for name in names]
    if all(len(parts) >= 2 for parts in assays):
        return tuple(_group_of(parts[1]) for parts in assays)
    if len(names) != LABELS:
        raise InputError(
            f"chromatin: {len(names)} labels such as {names[0]!r} do not say their group; name "
            f"them cell|assay|treatment, or give all {LABELS} in the published order"
        )
    return tuple(group for group, count in _BY_POSITION for _ in range(count))


def _group_of(assay: str) -> str:
    if assay.casefold().startswith("dnase"):
        return "DHS"
    return "HM" if _HISTONE.fullmatch(assay) else "TF"


def group_medians(names: Sequence[str], values: npt.ArrayLike) -> dict[str, float]:
    """Median of one value a label (AUROC, say) over the labels of each group.

    values: (T,); NaN where a label has no value (a single class in the test part), left out. A
    group without a value is left out of the answer.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (len(names),):
        raise InputError(f"chromatin: values have shape {array.shape} for {len(names)} labels")
    group = np.array(label_groups(names))
    return {
        name: float(np.median(known))
        for name in GROUPS
        for known in [array[(group == name) & ~np.isnan(array)]]
        if len(known)
    }


def _from_coordinates(
    task: str,
    folder: Path,
    tables: Sequence[Path],
    length: int,
    genome: str | Path | GenomeReader | None,
) -> WindowedData:
    reader = genome if isinstance(genome, GenomeReader) else Genome.open(genome or _fasta(folder))
    names: tuple[str, ...] = ()
    places: list[tuple[int, int, int]] = []
    flags = bytearray()
    splits: list[str] = []
    for path in tables:
        split = split_named(path.name.split("_")[0])
        if not split:
            raise InputError(f"{path}: the name must begin with train, val or test")
        table = open_table(path)
        mine = _label_columns(table)
        if names and mine != names:
            raise InputError(f"{path}: its labels are not those of {tables[0].name}")
        names = mine
        before = len(places)
        _read_coordinates(table, names, places, flags)
        splits += [split] * (len(places) - before)
    source, start, stop = np.array(places, dtype=np.int64).T
    targets = np.frombuffer(flags, dtype=np.bool_).reshape(len(places), len(names))
    contigs = [_contig(reader, int(k)) for k in np.unique(source)]
    windows = GenomeWindows(
        [ContigSource(reader, contig) for contig in contigs],
        np.unique(source, return_inverse=True)[1],
        start,
        stop,
    )
    return WindowedData.of(
        f"chromatin-{task}",
        windows.resized(length),
        targets,
        Task("labels", names),
        splits,
    )


def _fasta(folder: Path) -> Path:
    found = sorted(p for p in folder.iterdir() if suffix_of(p) in (".fa", ".fasta", ".fna"))
    if len(found) != 1:
        raise InputError(
            f"{folder}: holds {len(found)} FASTA files; give the genome that the coordinates are on"
        )
    return found[0]


def _label_columns(table: Table) -> tuple[str, ...]:
    missing = [name for name in _COORDINATES if name not in table.columns]
    names = tuple(name for name in table.columns if name.startswith("y_"))
    if missing or not names:
        raise InputError(
            f"{table.path}: lacks {', '.join(missing) or 'columns y_*'}; there must be "
            f"{', '.join(_COORDINATES)} and y_*"
        )
    return names


_FLAGS: Final = {
    "0": 0, "1": 1, "False": 0, "True": 1, "false": 0, "true": 1, "0.0": 0, "1.0": 1,
}  # fmt: skip


def _read_coordinates(
    table: Table,
    names: Sequence[str],
    places: list[tuple[int, int, int]],
    flags: bytearray,
) -> None:
    """Add chromosome number, start and stop of each row to `places`, and its labels to `flags`.

    A label is a byte: there may be 2 million rows of 919.
    """
    before = len(places)
    flag_of = _FLAGS.__getitem__
    for row, cells in table.rows((*_COORDINATES, *names)):
        place = table.place(row)
        try:
            number, start, stop = (int(cell) for cell in cells[:3])
        except ValueError:
            raise InputError(
                f"{place}: Chr_No, Start, End are {', '.join(cells[:3])}; they must be whole "
                "numbers"
            ) from None
        if stop - start != WINDOW:
            raise InputError(f"{place}: Start..End is {stop - start} bases; it must be {WINDOW}")
        try:
            flags += bytes(map(flag_of, cells[3:]))
        except KeyError:
            at = next(i for i, cell in enumerate(cells[3:]) if cell not in _FLAGS)
            raise InputError(
                f"{place}: {names[at]} is {cells[3 + at]!r}; it must be 0 or 1"
            ) from None
        places.append((number, start, stop))
    if len(places) == before:
        raise InputError(f"{table.path}: holds no rows")


def _contig(genome: GenomeReader, number: int) -> str:
    """The contig of a chromosome number that counts from 0, `chr1` or `1` for 0; 22 is X, 23 Y."""
    name = {22: "X", 23: "Y"}.get(number, str(number + 1))
    for contig in (f"chr{name}", name):
        if contig in genome.contigs:
            return contig
    raise InputError(
        f"{genome.path}: has no chromosome {name} (Chr_No {number}); it has "
        f"{', '.join(list(genome.contigs)[:5])} - is it another assembly?"
    )


def _from_matrices(task: str, matrices: Sequence[tuple[str, Path]]) -> LabelledData:
    sequences: list[Ids] = []
    targets: list[Bools] = []
    splits: list[str] = []
    for split, path in matrices:
        ids, target = read_matrix(path)
        if targets and target.shape[1] != targets[0].shape[1]:
            raise InputError(
                f"{path}: has {target.shape[1]} labels, {matrices[0][1].name} {targets[0].shape[1]}"
            )
        sequences += list(ids)
        targets.append(target)
        splits += [split] * len(ids)
    together = np.concatenate(targets) if len(targets) > 1 else targets[0]
    names = tuple(f"y_{i}" for i in range(together.shape[1]))
    return LabelledData(
        f"chromatin-{task}",
        tuple(sequences),
        together,
        Task("labels", names),
        np.asarray(splits, dtype=np.str_),
        tuple(f"{split}:{i}" for i, split in enumerate(splits, start=1)),
        notes=("sequences of 1,000 bases from the matrices; wider ones need coordinates",),
    )


def read_matrix(path: Path) -> tuple[Ids, Bools]:
    """Token ids (n, bases), uint8, and labels (n, T), bool, of a `.mat` file, one strand each.

    A block of rows is read at a time from a MATLAB 7.3 file; an older one is read whole.

    Raises InputError for a file that cannot be read or lacks one of the two arrays, for labels
    other than 0 and 1, and where the reader that it needs is not installed.
    """
    with path.open("rb") as stream:
        head = stream.read(10)
    newer = head == b"MATLAB 7.3" or head.startswith(_HDF5)  # 7.3 is HDF5 behind a header
    return _read_hdf5(path) if newer else _read_mat5(path)


def _names_in(keys: Any, path: Path) -> tuple[str, str]:
    names = [key for key in keys if not key.startswith("_")]
    for x in names:
        y = x.removesuffix("xdata") + "data"
        if x.endswith("xdata") and y in names:
            return x, y
    raise InputError(f"{path}: has no pair such as trainxdata and traindata; it has {names}")


def _read_mat5(path: Path) -> tuple[Ids, Bools]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    # what scipy's parser raises at damaged bytes: they are not checked before they are used
    damage = (MatReadError, ValueError, TypeError, LookupError, OSError, zlib.error)
    with path.open("rb") as stream:
        try:
            content: Mapping[str, Any] = loadmat(stream)
        except damage as error:
            raise InputError(
                f"{path}: is no whole MATLAB file ({type(error).__name__}: {error}); fetch it again"
            ) from error
    x, y = _names_in(content, path)
    one_hot, targets = content[x], content[y]
    fits = one_hot.ndim == 3 and targets.ndim == 2 and len(one_hot) == len(targets)
    if not fits or one_hot.shape[1] != 4:
        raise InputError(
            f"{path}: {x} is {one_hot.shape} and {y} {targets.shape}; there must be (rows, 4, "
            "bases) and (rows, labels)"
        )
    return _read_blocks(
        path,
        (len(one_hot), one_hot.shape[2], targets.shape[1]),
        lambda rows: one_hot[rows],
        lambda rows: targets[rows],
    )


def _read_hdf5(path: Path) -> tuple[Ids, Bools]:
    try:
        import h5py
    except ImportError:
        raise InputError(
            f"{path}: is a MATLAB 7.3 file, read by h5py, which is not installed; "
            "pip install h5py, or use the coordinates"
        ) from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); download it again") from None
    with file:
        x, y = _names_in(file.keys(), path)
        one_hot, targets = file[x], file[y]
        # MATLAB's axes come in reverse: (bases, 4, rows) and (labels, rows).
        fits = one_hot.ndim == 3 and targets.ndim == 2
        if not fits or one_hot.shape[1] != 4 or one_hot.shape[2] != targets.shape[1]:
            raise InputError(
                f"{path}: {x} is {one_hot.shape} and {y} {targets.shape}; there must be (bases, 4, "
                "rows) and (labels, rows)"
            )
        return _read_blocks(
            path,
            (one_hot.shape[2], one_hot.shape[0], targets.shape[0]),
            lambda rows: one_hot[:, :, rows].transpose(2, 1, 0),
            lambda rows: targets[:, rows].T,
        )


def _read_blocks(
    path: Path, shape: tuple[int, int, int], one_hot: Block, labels: Block
) -> tuple[Ids, Bools]:
    """Token ids and labels of the rows that hold each sequence once, read a block at a time.

    shape: rows, bases, labels. one_hot, labels: rows of the file, (n, 4, bases) and (n, T).
    """
    rows, bases, width = shape
    keep = _one_strand(rows, lambda block: _letters(one_hot(block)))
    ids, targets = np.empty((keep, bases), np.uint8), np.empty((keep, width), np.bool_)
    for start in range(0, keep, _ROWS_AT_ONCE):
        block = slice(start, min(start + _ROWS_AT_ONCE, keep))
        ids[block] = _letters(one_hot(block))
        values = labels(block)
        targets[block] = values != 0
        wrong = targets[block] & (values != 1)
        if wrong.any():
            row = start + int(wrong.any(1).argmax())
            raise InputError(
                f"{path}: row {row + 1} has the label {values[wrong][0]}; it must be 0 or 1"
            )
    return ids, targets


def _letters(one_hot: npt.NDArray[Any]) -> Ids:
    """Token ids (n, bases) of one-hot rows (n, 4, bases) in the order A, G, C, T; none set is N."""
    there = [one_hot[:, i] != 0 for i in range(4)]
    count = sum(each.view(np.uint8) for each in there)
    ids: Ids = sum(each * letter for each, letter in zip(there, _MAT_LETTERS, strict=True))
    ids[count != 1] = N
    return ids


def _one_strand(rows: int, read: Callable[[slice], Ids]) -> int:
    """How many rows hold each sequence once: half, where the other half is the other strand."""
    half = rows // 2
    if rows % 2 or not half:
        return rows
    some = min(half, 16)
    first, second = read(slice(0, some)), read(slice(half, half + some))
    return half if np.array_equal(reverse_complement_ids(first), second) else rows


def where_from() -> str:
    """Where the data comes from, and the steps."""
    return (
        "DeepSEA (Zhou and Troyanskaya 2015), http://deepsea.princeton.edu: deepsea_train_bundle "
        "with train.mat (MATLAB 7.3), valid.mat and test.mat; 4,400,000 / 8,000 / 455,024 rows, "
        "each sequence on both strands. --download fetches the bundle (several GB) and hg19.\n"
        "1. Unpack train.mat, valid.mat and test.mat into DATA: windows of 1,000 bases, no genome "
        "needed.\n"
        "2. For wider windows: {train,val,test}_hg19_coords_targets.csv with Chr_No (from 0), "
        "Start, End and y_* into DATA, and hg19 as a FASTA (UCSC hg19.fa.gz); for hg38 lift both "
        "ends over and drop what fails or is no longer 1,000 bases.\n"
        "Groups of labels: 125 DHS, 690 TF, 104 HM; test is chromosomes 8 and 9."
    )


def remote_files() -> tuple[RemoteFile, ...]:
    """The matrices, and the genome that coordinates are on (the coordinates have no address).

    The checksum of hg19 is UCSC's (md5sum.txt beside it), on record in
    trafalmadorian97/mecfs_bioinformatics, mecfs_bio/assets/reference_data/genome_sequence/
    ucsc_hg19_fasta.py, and in others. None is on record of the bundle.
    """
    bundle = "https://deepsea.princeton.edu/media/code/deepsea_train_bundle.v0.9.tar.gz"
    return (
        RemoteFile(
            address=bundle,
            path="deepsea_train_bundle.v0.9.tar.gz",
            tasks=("1k",),
            members=tuple(f"{stem}.mat" for stem, _ in _MATRICES),
        ),
        RemoteFile(
            address=f"{UCSC}/hg19/bigZips/hg19.fa.gz",
            path="hg19.fa.gz",
            tasks=("8k",),
            checksum="md5:806c02398f5ac5da8ffd6da2d1d5d1a9",
        ),
    )


SUITE: Final = Suite(
    "chromatin", "Chromatin profiles", list_tasks, load, where_from, remote_files, partly=("8k",)
)
