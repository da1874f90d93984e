"""Downloads: laid where the readers look, checked, not fetched twice, one clear line when wrong."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from tests.public_server import public_server

from hyenadna.data.benchmarks import (
    chromatin,
    genomic_benchmarks,
    gue,
    lentimpra,
    promoters,
    species,
)
from hyenadna.data.benchmarks import nucleotide_transformer as nt
from hyenadna.data.benchmarks.download import RECORD, checksum_of, fetch
from hyenadna.data.benchmarks.remote import (
    RemoteFile,
    github_address,
    hub_address,
    of_tasks,
    split_hub_address,
)
from hyenadna.data.benchmarks.suites import SUITES
from hyenadna.errors import InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def server():
    with public_server() as running:
        yield running


def text_file(**more) -> RemoteFile:
    return RemoteFile(address="https://example.org/a/one.txt", path="sub/one.txt", **more)


def get(files, folder, server):
    return list(fetch(files, folder, mirrors=server.mirrors))


def left_over(folder: Path) -> list[str]:
    """What lies about that is neither data nor the record."""
    return [p.name for p in folder.rglob("*") if p.name.startswith(".")]


# --- what is on record ------------------------------------------------------------------------


def test_every_suite_says_where_its_files_are_and_what_they_are_for():
    for suite in SUITES.values():
        files = suite.remote_files()
        names = {task.name for task in suite.list_tasks()}
        targets = [target for file in files for target in file.targets]
        assert files and len(targets) == len(set(targets)), suite.name
        for file in files:
            assert set(file.tasks) <= names, file
            assert re.fullmatch(r"(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})?", file.checksum)
            assert re.match(r"(https|hf)://", file.address) and " " not in file.address
            hub = split_hub_address(file.address)
            if hub:
                assert re.fullmatch(r"[0-9a-f]{40}", hub[1]), file
            if "githubusercontent" in file.address:
                assert re.search(r"/[0-9a-f]{40}/", file.address), file


def test_files_are_chosen_by_task():
    chosen = of_tasks(promoters.remote_files(), ["mouse_tata_dbtss"])
    assert {file.path for file in chosen} == {"Mouse_tata_dbtss.fa", "Mouse_nonprom.fa"}
    assert len(of_tasks(species.remote_files(), ["1k"])) == 24 + 29 + 20 + 20 + 18
    assert [f.path for f in of_tasks(chromatin.remote_files(), ["8k"])] == ["hg19.fa.gz"]
    assert "covid" not in {task for file in gue.remote_files() for task in file.tasks}
    lemur = next(f for f in species.remote_files() if f.path == "lemur/chr2.fna.gz")
    assert "/GCA/020/740/605/GCA_020740605.1_mLemCat1.pri/" in lemur.address


def test_addresses_are_taken_apart_as_they_are_put_together():
    address = hub_address("owner/name", COMMIT, "a/b.csv")
    assert split_hub_address(address) == ("owner/name", COMMIT, "a/b.csv")
    assert split_hub_address(github_address("owner/name", COMMIT, "a/b.csv")) is None


# --- fetching ---------------------------------------------------------------------------------


def test_what_has_no_checksum_is_trusted_once_and_then_checked(server, tmp_path):
    file = text_file()
    server.serve(file, b"first content")
    (done,) = get([file], tmp_path, server)
    assert (done.new, done.checked, done.size) == (True, "first", 13)
    assert (tmp_path / "sub" / "one.txt").read_bytes() == b"first content"
    known = json.loads((tmp_path / RECORD).read_text())["files"]["sub/one.txt"]
    assert known == {
        "sha256": hashlib.sha256(b"first content").hexdigest(), "address": file.address,
    }  # fmt: skip
    (again,) = get([file], tmp_path, server)
    assert (again.new, again.checked, server.fetched) == (False, "recorded", ["/a/one.txt"])
    (tmp_path / "sub" / "one.txt").unlink()
    (third,) = get([file], tmp_path, server)
    assert (third.new, third.checked) == (True, "recorded")
    (tmp_path / "sub" / "one.txt").unlink()
    server.serve(file, b"other content")
    with pytest.raises(InputError, match=r"example.org/a/one.txt: what came has sha256 .* as ch"):
        get([file], tmp_path, server)
    assert not (tmp_path / "sub" / "one.txt").exists() and not left_over(tmp_path)


def test_a_published_checksum_is_kept_to(server, tmp_path):
    right = text_file(checksum=f"md5:{hashlib.md5(b'right').hexdigest()}")
    server.serve(right, b"wrong")
    with pytest.raises(InputError, match=r"what came has md5 .*, as it is published; nothing was"):
        get([right], tmp_path, server)
    assert not (tmp_path / "sub" / "one.txt").exists() and not left_over(tmp_path)
    server.serve(right, b"right")
    assert [d.checked for d in get([right], tmp_path, server)] == ["published"]
    (tmp_path / RECORD).unlink()
    assert not get([right], tmp_path, server)[0].new  # the checksum alone says that it is right


def test_files_of_the_hub_are_checked_by_their_commit(server, tmp_path):
    address = hub_address("owner/name", COMMIT, "data/x-00000.parquet")
    file = RemoteFile(address=address, path="x/train.parquet")
    server.serve(file, b"some rows")
    server.wrong_etag = True
    with pytest.raises(InputError, match=r"hf://datasets/owner/name@.*, that of this commit"):
        get([file], tmp_path, server)
    assert not (tmp_path / "x" / "train.parquet").exists()
    server.wrong_etag = False
    (done,) = get([file], tmp_path, server)
    assert (done.new, done.checked) == (True, "commit")
    assert (tmp_path / "x" / "train.parquet").read_bytes() == b"some rows"
    asked = len(server.fetched)
    assert not get([file], tmp_path, server)[0].new and len(server.fetched) == asked
    assert not left_over(tmp_path)


def test_nothing_of_the_users_is_written_over(server, tmp_path):
    file = text_file()
    server.serve(file, b"from the server")
    place = tmp_path / "sub" / "one.txt"
    place.parent.mkdir()
    place.write_text("mine")
    with pytest.raises(InputError, match=r"one.txt: is there, but --download did not fetch it"):
        get([file], tmp_path, server)
    place.unlink()
    get([file], tmp_path, server)
    place.write_text("changed")
    with pytest.raises(InputError, match=r"one.txt: is not what was downloaded .* delete it"):
        get([file], tmp_path, server)
    assert place.read_text() == "changed"


def test_what_cannot_be_fetched_is_one_line_with_the_address(server, tmp_path):
    with pytest.raises(InputError, match=r"example.org/a/one.txt: the server answered 404") as one:
        get([text_file()], tmp_path, server)
    absent = RemoteFile(address=hub_address("owner/name", COMMIT, "x.csv"), path="x.csv")
    gone = {"https://example.org": "http://127.0.0.1:9"}  # nobody listens there
    with pytest.raises(InputError, match=r"one.txt: cannot be fetched .* is this machine") as two:
        list(fetch([text_file()], tmp_path, mirrors=gone))
    gone = {"https://huggingface.co": "http://127.0.0.1:9"}
    with pytest.raises(InputError, match=r"x.csv: cannot be fetched \(Connect\w*Error\)"):
        list(fetch([absent], tmp_path, mirrors=gone))
    with pytest.raises(InputError, match=r"x.csv: the hub answered 404") as three:
        get([absent], tmp_path, server)
    server.serve(text_file(), b"x" * 5000)
    server.cut = True
    with pytest.raises(InputError, match=r"example.org/a/one.txt: cannot be fetched") as four:
        get([text_file()], tmp_path, server)
    assert not any("\n" in str(error.value) for error in (one, two, three, four))
    assert not (tmp_path / "sub").exists() and not (tmp_path / RECORD).exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        get([text_file()], tmp_path / "file", server)


def test_a_damaged_record_is_told(server, tmp_path):
    for text in ("{}", '{"files": []}', '{"files": {"x": 1}}', "{"):
        (tmp_path / RECORD).write_text(text)
        with pytest.raises(InputError, match=r"checksums.json: is not what --download wrote"):
            get([text_file()], tmp_path, server)


def test_an_archive_becomes_the_files_that_are_wanted(server, tmp_path):
    def packed(*names: str) -> bytes:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:gz") as tar:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = len(name)
                tar.addfile(info, io.BytesIO(name.encode()))
        return raw.getvalue()

    file = RemoteFile(
        address="https://example.org/bundle.tar.gz",
        path="bundle.tar.gz",
        members=("train.mat", "test.mat"),
    )
    server.serve(file, b"<html>moved</html>")
    with pytest.raises(InputError, match=r"bundle.tar.gz: what came is no whole archive"):
        get([file], tmp_path, server)
    server.serve(file, packed("b/train.mat"))
    with pytest.raises(InputError, match=r"bundle.tar.gz: the archive has no test.mat"):
        get([file], tmp_path, server)
    assert not list(tmp_path.iterdir())
    server.serve(file, packed("b/train.mat", "b/readme", "../test.mat"))
    (done,) = get([file], tmp_path, server)
    assert done.new and done.checked == "first"
    assert sorted(p.name for p in tmp_path.iterdir()) == [RECORD, "test.mat", "train.mat"]
    assert (tmp_path / "train.mat").read_text() == "b/train.mat"
    assert not get([file], tmp_path, server)[0].new
    (tmp_path / "test.mat").unlink()
    assert get([file], tmp_path, server)[0].checked == "recorded"


def test_a_git_checksum_is_that_of_the_blob(tmp_path):
    (tmp_path / "x").write_bytes(b"hello\n")  # printf 'hello\n' | git hash-object --stdin
    assert checksum_of(tmp_path / "x", "git") == "ce013625030ba8dba906f756967f9e9ca394464a"


# --- the readers read what was downloaded -----------------------------------------------------


def test_the_nucleotide_transformer_reader_reads_the_layout_of_the_hub(server, tmp_path):
    files = of_tasks(nt.remote_files(), ["enhancer_types"])
    assert [f.path for f in files] == ["enhancers_types/train.fna", "enhancers_types/test.fna"]
    for file, count in zip(files, (6, 3), strict=True):
        rows = "".join(f">chr1:{i}-{i + 4}|{i % 3}\nACGT\n" for i in range(count))
        server.serve(file, rows.encode())
    get(files, tmp_path, server)
    data = nt.load("enhancer_types", tmp_path)
    assert data.splits.tolist() == ["test"] * 3 + ["train"] * 6
    assert data.targets.tolist() == [0, 1, 2] * 3 and data.task.names == ("0", "1", "2")


def test_the_genomic_benchmarks_reader_reads_the_layout_of_the_hub(server, tmp_path):
    files = of_tasks(genomic_benchmarks.remote_files(), ["human_ocr_ensembl"])
    for file, count in zip(files, (4, 2), strict=True):
        table = pa.table({"seq": ["ACGTN"] * count, "label": [i % 2 for i in range(count)]})
        raw = io.BytesIO()
        parquet.write_table(table, raw)
        server.serve(file, raw.getvalue())
    get(files, tmp_path, server)
    data = genomic_benchmarks.load("human_ocr_ensembl", tmp_path)
    assert data.splits.tolist() == ["test"] * 2 + ["train"] * 4
    assert data.targets.tolist() == [0, 1] * 3 and data.task.names == ("0", "1")


def test_the_gue_reader_reads_the_layout_of_the_copy(server, tmp_path):
    files = of_tasks(gue.remote_files(), ["tf3"])
    assert [f.path for f in files] == ["tf/3/train.csv", "tf/3/dev.csv", "tf/3/test.csv"]
    for file in files:
        server.serve(file, b"sequence,label\nACGT,0\nACGA,1\n")
    get(files, tmp_path, server)
    data = gue.load("tf3", tmp_path)
    assert sorted(data.splits.tolist()) == ["test"] * 2 + ["train"] * 2 + ["valid"] * 2


def test_the_lentimpra_reader_reads_the_layout_of_the_copy(server, tmp_path):
    files = of_tasks(lentimpra.remote_files(), ["WTC11"])
    for file, name in zip(files, ("a", "b"), strict=True):
        rows = f"seq_id\tseq\tmean_value\nseq{name}_F\tACGTTTGCA\t0.5\nseq{name}_R\tACGAACGCA\t-1\n"
        server.serve(file, rows.encode())
    get(files, tmp_path, server)
    data = lentimpra.load("WTC11", tmp_path)
    assert data.splits.tolist() == ["test"] * 2 + ["valid"] * 2
    assert data.targets[:, 0].tolist() == [0.5, -1.0] * 2


def test_the_promoter_reader_reads_the_pairs(server, tmp_path):
    files = of_tasks(promoters.remote_files(), ["bacillus"])
    for file in files:
        positive = file.path == "Bacillus_prom.fa"
        rows = ">p\nAAAA\n>q\nCCCC\n" if positive else ">n\nGGGG\n>m\nTTTG\n>o\nACGT\n"
        server.serve(file, rows.encode())
    get(files, tmp_path, server)
    data = promoters.load("bacillus", tmp_path)
    assert data.task.names == ("0", "1") and data.targets.tolist() == [1, 1, 0, 0, 0]
    assert set(data.splits.tolist()) == {""}
    (tmp_path / "Bacillus_non_prom.fa").unlink()
    with pytest.raises(InputError, match="holds no Bacillus_non_prom"):
        promoters.load("bacillus", tmp_path)


def test_two_downloads_do_not_write_one_folder(server, tmp_path):
    file = text_file()
    server.serve(file, b"one")
    running = fetch([file, file], tmp_path, mirrors=server.mirrors)
    next(running)
    with pytest.raises(InputError, match="another download is writing it"):
        next(fetch([file], tmp_path, mirrors=server.mirrors))
    running.close()
    assert next(fetch([file], tmp_path, mirrors=server.mirrors)).new is False
