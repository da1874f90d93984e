"""All four files hold the same rows, columns and settings, and survive an interruption."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from hyenadna.data.records import Record
from hyenadna.errors import InputError
from hyenadna.infer import embeddings_spill
from hyenadna.infer.embedding_formats import npz
from hyenadna.infer.embeddings_file import WRITERS, EmbeddingsFile, require_free
from hyenadna.infer.embeddings_read import read_embeddings
from hyenadna.infer.embeddings_spill import Column, RowLayout
from hyenadna.infer.interrupted import stored_settings

pytest.importorskip("anndata")
pytest.importorskip("zarr")

SETTINGS = {"model": "toy", "weights": "abc", "bin": 10, "layer": -1}
LENGTHS = [25, 10, 3, 41, 10, 9, 30]
IDS = ["a", "b", "a", "ä b", "a-1", "a", 'c,"d"']
COLUMNS = ("kind", "score", "label", "note/x", "007")
CELLS = [
    ("tRNA", "0.5", "1", f"t{i}", f"0{i}") if i % 3 else ("", "", "0", "", f"0{i}")
    for i in range(7)
]
RECORDS = [
    Record(id, cells, length, lambda a, b: np.zeros(b - a, np.uint8))
    for id, cells, length in zip(IDS, CELLS, LENGTHS, strict=True)
]
SUFFIXES = sorted(WRITERS)


def layout(bin=None, places=(), **options) -> RowLayout:
    rows = len(LENGTHS) if bin is None else sum(-(-n // bin) for n in LENGTHS)
    return RowLayout(rows=rows, width=8, columns=COLUMNS, bin=bin, places=places, **options)


BY_BIN = layout(10, ("bin_start", "bin_stop"))


def rows_of(made: RowLayout) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(made.rows, 8)).astype(np.float32)


def write(path, made, *, stop_after=None, resume=False, settings=SETTINGS):
    """What the command does, a sequence at a time; after `stop_after` it is gone in mid-row."""
    rows, note = rows_of(made), ""
    if resume:
        file, note = EmbeddingsFile.resume(path, made, settings)
    else:
        file = EmbeddingsFile.start(path, made, settings)
    begun = file.sequences_done
    for number, each in enumerate(RECORDS[begun:], start=begun):
        first = file.rows_done
        count = made.rows_of(each.length)
        half = 0
        if count > 2 and not file.chunks_done:  # a long one in two parts
            half = 1
            file.append(rows[first : first + 1], [], 1)
        if stop_after is not None and number >= stop_after:
            for name in ("rows", "sequences"):
                with (path.with_name(path.name + ".part") / name).open("ab") as stream:
                    stream.write(b"half")
            return note, begun
        first, taken = file.rows_done, half or (1 if file.chunks_done else 0)
        file.append(rows[first : first + count - taken], [each])
    return note, begun, file.finish()


def same(one, other) -> None:
    np.testing.assert_array_equal(one.values, other.values)
    assert one.columns.keys() == other.columns.keys()
    for name in one.columns:
        assert one.columns[name].tolist() == other.columns[name].tolist() or np.array_equal(
            one.columns[name], other.columns[name], equal_nan=True
        )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("made", [layout(), BY_BIN, layout(1, ("position",))], ids=str)
def test_every_file_is_read_back(tmp_path, suffix, made, monkeypatch):
    monkeypatch.setattr(embeddings_spill, "BLOCK_ROWS", 5)
    path = tmp_path / f"e{suffix}"
    write(path, made)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    found = read_embeddings(path)
    np.testing.assert_array_equal(found.values, rows_of(made))
    assert found.settings == SETTINGS and found.in_file == len(found) == made.rows
    counts = [made.rows_of(n) for n in LENGTHS]
    assert found.columns["id"].tolist() == np.repeat(np.array(IDS, object), counts).tolist()
    kinds = np.repeat([cells[0] for cells in CELLS], counts).tolist()
    assert found.columns["kind"].tolist() == kinds
    assert found.columns["label"].dtype == np.int64 and found.columns["score"].dtype == np.float64
    assert np.isnan(found.columns["score"][0]) and found.columns["label"][counts[0]] == 1
    assert found.columns["007"].tolist()[0] == "00"  # a name, no number
    if made.bin == 10:
        places = list(zip(found.columns["bin_start"], found.columns["bin_stop"], strict=True))
        want = [(i, min(i + 10, n)) for n in LENGTHS for i in range(0, n, 10)]
        assert places == want
    if made.bin == 1:
        assert found.columns["position"].tolist() == [i for n in LENGTHS for i in range(n)]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("stop_after", [0, 1, 3, 6])
def test_a_resumed_file_equals_an_unbroken_one(tmp_path, suffix, stop_after):
    write(tmp_path / f"whole{suffix}", BY_BIN)
    path = tmp_path / f"broken{suffix}"
    write(path, BY_BIN, stop_after=stop_after)
    assert not path.exists()
    settings = SETTINGS | {"model": "another name of it"}
    note, begun, _ = write(path, BY_BIN, resume=True, settings=settings)
    assert note == "" and begun == stop_after
    same(read_embeddings(tmp_path / f"whole{suffix}"), read_embeddings(path))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_the_same_run_is_the_same_file(tmp_path, suffix):
    for name in ("one", "two"):
        write(tmp_path / f"{name}{suffix}", BY_BIN)
    one, two = (tmp_path / f"{name}{suffix}" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_anndata_reads_it_as_its_own(tmp_path, suffix):
    import anndata

    path = tmp_path / f"e{suffix}"
    *_, notes = write(path, layout())
    assert notes == [
        "2 sequences have an id that another has; their rows are named id-1, id-2, … (column id "
        "keeps the id)"
    ]
    read = anndata.read_h5ad if suffix == ".h5ad" else anndata.read_zarr
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read(path)
    assert found.shape == (7, 8) and found.X.dtype == np.float32
    assert found.obs_names.is_unique
    assert found.obs_names.tolist() == ["a", "b", "a-2", "ä b", "a-1", "a-3", 'c,"d"']
    assert found.obs["id"].tolist() == IDS
    assert found.obs["kind"].dtype == "category" and found.obs["kind"].isna().sum() == 3
    assert "note_x" in found.obs and found.var_names[3] == "dim_3"
    assert found.uns["hyenadna"]["weights"] == "abc"
    assert json.loads(found.uns["hyenadna"]["settings"]) == SETTINGS
    found.write_h5ad(tmp_path / "again.h5ad")  # nothing in it that anndata cannot write
    same(read_embeddings(path), read_embeddings(tmp_path / "again.h5ad"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_that_would_have_one_name(tmp_path, suffix):
    names = ("a/b", "a_b", "model", "model_", "embedding", "embedding_", "embeddings")
    made = RowLayout(rows=2, width=3, columns=names)
    file = EmbeddingsFile.start(tmp_path / f"e{suffix}", made, {})
    records = [Record(f"r{i}", tuple(f"{n}{i}" for n in names), 5, None) for i in range(2)]
    file.append(np.zeros((2, 3), dtype=np.float32), records, 0)
    file.finish()
    found = read_embeddings(tmp_path / f"e{suffix}")
    texts = {tuple(column) for name, column in found.columns.items() if name != "obs_name"}
    assert texts == {(f"{n}0", f"{n}1") for n in names} | {("r0", "r1")}


def test_rows_of_parts_are_named_by_place(tmp_path):
    import anndata

    write(tmp_path / "b.h5ad", BY_BIN)
    obs = anndata.read_h5ad(tmp_path / "b.h5ad").obs
    assert obs["id"].dtype == "category"  # a few contigs, and many bins of each
    names = obs.index
    assert names[:4].tolist() == ["a:1-10", "a:11-20", "a:21-25", "b:1-10"]
    write(tmp_path / "p.h5ad", layout(1, ("position",)))
    names = anndata.read_h5ad(tmp_path / "p.h5ad").obs_names
    assert names[:2].tolist() == ["a:1", "a:2"] and names.is_unique


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_half_precision(tmp_path, suffix):
    made = layout(dtype="float16")
    write(tmp_path / f"e{suffix}", made)
    found = read_embeddings(tmp_path / f"e{suffix}")
    np.testing.assert_array_equal(found.values, rows_of(made).astype(np.float16))
    file = EmbeddingsFile.start(tmp_path / f"big{suffix}", made, SETTINGS)
    with pytest.raises(InputError, match=r"float16 holds numbers up to 65,504, .* has 70,000"):
        file.append(np.full((1, 8), 7e4, np.float32), RECORDS[:1])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_sample_is_seeded_and_in_order(tmp_path, suffix):
    made = layout(1, ("position",))
    write(tmp_path / f"e{suffix}", made)
    one, again, other = (
        read_embeddings(tmp_path / f"e{suffix}", most=20, seed=seed) for seed in (1, 1, 2)
    )
    assert len(one) == 20 and one.in_file == 128 and (np.diff(one.rows) > 0).all()
    same(one, again)
    np.testing.assert_array_equal(one.values, rows_of(made)[one.rows])
    assert one.rows.tolist() != other.rows.tolist()


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "-2", "0"], "integer"),
        (["1", ""], "number"),
        (["1e-3", "nan", "-inf", ""], "number"),
        (["01", "1"], "text"),
        (["", ""], "text"),
        (["1", "x"], "text"),
        (["9" * 30], "number"),
    ],
)
def test_types_of_columns(texts, kind):
    column = Column()
    for text in texts:
        column.add(text)
    assert column.kind == kind


def test_rows_of_other_settings_are_not_mixed_in(tmp_path):
    path = tmp_path / "e.npz"
    write(path, BY_BIN, stop_after=4)
    part = tmp_path / "e.npz.part"
    before = (part / "rows").read_bytes()
    for other, message in (
        ({"bin": 9}, "was made with bin 10, not 9; resume with the same, or remove .*part to"),
        ({"weights": "x" * 80}, "was made with other weights; resume"),
        ({"batch_tokens": 64}, "was made with batch_tokens None, not 64; resume"),
    ):
        with pytest.raises(InputError, match=message):
            write(path, BY_BIN, settings=SETTINGS | other, resume=True)
        assert (part / "rows").read_bytes() == before
    assert stored_settings(path) == SETTINGS
    note, begun, _ = write(path, BY_BIN, resume=True)
    assert begun == 4 and note == "" and path.exists()


@pytest.mark.parametrize("name", ["rows", "sequences", "done.json", "settings.json"])
@pytest.mark.parametrize("damage", [b"", b"[1]", None])
def test_a_damaged_run_starts_over(tmp_path, name, damage):
    path = tmp_path / "e.zarr"
    write(path, BY_BIN, stop_after=4)
    (tmp_path / "e.zarr.part" / "whole.zarr").mkdir()
    file = tmp_path / "e.zarr.part" / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    note, begun, _ = write(path, BY_BIN, resume=True)
    assert begun == 0 and "damaged, starting over" in note and path.exists()


def test_nothing_to_resume(tmp_path):
    note, begun, _ = write(tmp_path / "e.npz", layout(), resume=True)
    assert begun == 0 and "nothing to resume" in note and (tmp_path / "e.npz").exists()


def test_where_embeddings_may_go(tmp_path):
    (tmp_path / "there.npz").touch()
    (tmp_path / "there.zarr").mkdir()
    (tmp_path / "half.npz.part").mkdir()
    for name, message in [
        ("there.npz", "exists; remove it"),
        ("there.zarr", "exists; remove it"),
        ("e.csv", "written as .npz, .parquet, .h5ad, .zarr"),
        ("no/e.npz", "there is no folder"),
        ("half.npz", "go on with --resume, or remove it"),
    ]:
        with pytest.raises(InputError, match=message):
            require_free(tmp_path / name)
    require_free(tmp_path / "half.npz", resume=True)


@pytest.mark.parametrize("package", ["anndata", "zarr"])
def test_a_missing_package_is_told_before_the_work(tmp_path, monkeypatch, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(InputError, match=rf"{package} is not installed; `pip install 'hyenadna\["):
        require_free(tmp_path / "e.zarr")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_file_of_embeddings(tmp_path, suffix):
    path = tmp_path / f"e{suffix}"
    with pytest.raises(InputError, match="no such file"):
        read_embeddings(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="cannot be read as embeddings"):
        read_embeddings(path)
    path.unlink()
    file = EmbeddingsFile.start(path, RowLayout(rows=0, width=8), SETTINGS)
    file.finish()
    with pytest.raises(InputError, match="holds no rows"):
        read_embeddings(path)


def test_other_arrays_are_refused_by_name(tmp_path):
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    with pytest.raises(InputError, match="has no array 'embeddings'; it has other"):
        read_embeddings(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", embeddings=np.zeros(3))
    with pytest.raises(InputError, match=r"of shape \(3,\), not \(rows, D\)"):
        read_embeddings(tmp_path / "y.npz")
    np.savez(tmp_path / "z.npz", embeddings=np.eye(3), name=np.array(["a", "b", "c"]))
    found = read_embeddings(tmp_path / "z.npz")
    assert found.values.tolist() == np.eye(3).tolist()
    assert found.column("name").tolist() == ["a", "b", "c"]
    with pytest.raises(InputError, match="have no column 'kind'; they have name"):
        found.column("kind")
    assert npz.RESERVED[0] == "embeddings"
