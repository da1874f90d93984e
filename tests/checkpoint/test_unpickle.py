"""Hostile files are refused with one line, and nothing of them runs."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_examples import lightning_value, small_model, torch_zip
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.checkpoint.torch_file import LazyTensor, TorchFile
from hyenadna.checkpoint.unpickle import Global, Inert, unpickle
from hyenadna.errors import InputError


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    """A file that the hostile pickles try to make."""
    return tmp_path / "pwned"


def hostile_objects(sentinel: Path) -> dict[str, Any]:
    touch = f"touch {sentinel}"
    python = f"open({str(sentinel)!r}, 'w')"
    return {
        "os.system": Call(os.system, touch),
        "eval": Call(eval, python),
        "exec": Call(exec, python),
        "open": Call(open, str(sentinel), "w"),
        "subprocess": Call(subprocess.call, ["touch", str(sentinel)]),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "import": Call(__import__, "antigravity"),
        "torch.load": Call(torch.load, str(sentinel)),
        "defaultdict": Call(collections.defaultdict, Call(eval, python)),
        "namespace": argparse.Namespace(inner=Call(os.system, touch)),
        "in a key": {"a": [(1, {"b": Call(os.system, touch)})]},
    }


@pytest.mark.parametrize("name", hostile_objects(Path("x")))
def test_hostile_calls_do_not_run(tmp_path: Path, sentinel: Path, name: str) -> None:
    evil = hostile_objects(sentinel)[name]
    value = lightning_value(small_model())
    value["optimizer_states"].append({"state": evil})
    for protocol in (2, 4):
        path = tmp_path / f"evil{protocol}.ckpt"
        torch.save(value, path, pickle_protocol=protocol)
        with pytest.raises(InputError, match="nothing was run") as error, TorchFile(path):
            pass
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    assert not sentinel.exists()


def test_the_hostile_pickles_would_have_run(sentinel: Path) -> None:
    """The power of the test above: Python's own reader runs them."""
    pickle.loads(pickle.dumps(hostile_objects(sentinel)["os.system"]))
    assert sentinel.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n(S'touch %s'\ntR.",
        b"cnt\nsystem\n(S'touch %s'\ntR.",
        b'c__builtin__\neval\n(S\'open("%s","w")\'\ntR.',
        b'cbuiltins\nexec\n(S\'open("%s","w")\'\ntR.',
        b"ccollections\nabc.sys.modules\n(S'%s'\ntR.",
        b"ccollections\ndefaultdict\n(cos\nsystem\ntR(S'touch %s'\nS'x'\ns.",
        b"ctyping\nget_type_hints\n(S'%s'\ntR.",
        b"ctyping\nAny.__class__\n(S'%s'\ntR.",
        b"comegaconf.resolvers\noc.env\n(S'%s'\ntR.",
        b"comegaconf\nOmegaConf\n(S'%s'\ntR.",
        b"ctorch\nload\n(S'%s'\ntR.",
        b"ctorch.hub\nload\n(S'%s'\ntR.",
        b"cpytorch_lightning\n__init__.os.system\n(S'touch %s'\ntR.",
        b"(S'touch %s'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch %s'\no.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93(S'touch %s'\ntR.",
        b"\x82\x01(S'%s'\ntR.",
        b"Pany reference %s\n.",
    ],
)
def test_hostile_programs_do_not_run(sentinel: Path, program: bytes) -> None:
    with pytest.raises(InputError, match=r"evil\.ckpt"):
        unpickle(program.replace(b"%s", str(sentinel).encode()), source="evil.ckpt")
    assert not sentinel.exists()


def test_the_error_names_the_global() -> None:
    with pytest.raises(InputError, match=r"bad\.ckpt: the file asks for 'posix\.system'"):
        unpickle(pickle.dumps(Call(os.system, "true")), source="bad.ckpt")


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (b"K\x01)R.", "a call of a value of type int"),  # a number called
        (b"ctyping\nAny\n)R)R.", "a call of a value of type Inert"),  # an instance called
        (b"ctyping\nAny\nK\x01R.", "with a value of type int"),  # arguments that are no tuple
        (b"ctyping\nAny\n}(S'materialize'\nK\x01ub.", r"state set on typing\.Any"),
        (b"ccollections\ndefaultdict\n(K\x05tR.", "factory is no name"),
        (b"]K\x01b.", "state set on a value of type list"),
        (b"K\x01K\x02a.", "items added to"),
        (b"]K\x01K\x02s.", "keys set on"),
        (b"}]K\x01s.", "a dict key of type list"),
        (b"}" + b"K\x01\x85" + b"2\x86" * 60 + b"K\x01s.", "a dict key of type tuple"),
        (b"h\x07.", "damaged pickle"),  # a memo entry that is not there
        (b".", "damaged pickle"),
        (b"(.", "damaged pickle"),
        (b"t.", "damaged pickle"),
        (b"K\x01", "damaged pickle"),  # no STOP
        (b"\xff\xfe", "damaged pickle"),
        (b"I" + b"9" * 5000 + b"\n.", "damaged pickle"),
        (b"\x8b\xff\xff\xff\x7f.", "damaged pickle"),  # a number of 2 GiB
        (b"\x8f.", "opcode EMPTY_SET"),
        (b"Q.", "damaged pickle"),
    ],
)
def test_nonsense_is_a_clean_error(program: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        unpickle(program, source="x.ckpt")


def test_deep_nesting_is_read_or_refused_without_a_crash() -> None:
    depth = 200_000
    value = unpickle(b"]" * depth + b"a" * (depth - 1) + b".", source="deep")
    assert isinstance(value, list)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_an_input_error(program: bytes) -> None:
    try:
        unpickle(program, source="fuzz")
    except InputError as error:
        assert "fuzz" in str(error)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
        | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner)
        | st.tuples(inner, inner),
        max_leaves=12,
    ),
    st.integers(0, 5),
)  # fmt: skip
def test_plain_data_is_read_as_python_reads_it(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol=protocol)
    assert unpickle(data, source="plain") == value


def test_objects_become_inert() -> None:
    value = unpickle(pickle.dumps(argparse.Namespace(lr=0.1), protocol=2), source="x")
    assert isinstance(value, Inert)
    data = pickle.dumps(collections.defaultdict(list, {"a": [1]}))
    assert unpickle(data, source="x") == {"a": [1]}
    assert unpickle(pickle.dumps(collections.OrderedDict(a=1)), source="x") == {"a": 1}
    scalar = unpickle(pickle.dumps(np.float64(1.5)), source="x")
    assert isinstance(scalar, Inert)
    assert scalar.kind.name == "scalar"


# -- torch files --------------------------------------------------------------------------------


def test_tensors_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        "whole": base,
        "transposed": base.T,
        "slice": base[1:3, ::2],
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "half": torch.ones(2, dtype=torch.float16),
        "bfloat16": torch.ones(2, dtype=torch.bfloat16) * 3,
        "long": torch.tensor(7),
        "bool": torch.tensor([True, False]),
        "empty": torch.empty(0, 5),
    }
    torch.save(value, tmp_path / "t.pt")
    with TorchFile(tmp_path / "t.pt") as file:
        assert set(file.value) == set(value)
        for name, expected in value.items():
            lazy = file.value[name]
            assert isinstance(lazy, LazyTensor)
            assert lazy.shape == tuple(expected.shape)
            assert lazy.dtype == expected.dtype
            assert torch.equal(lazy.materialize(), expected.detach()), name


def test_reading_names_reads_no_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = TorchFile.record

    def counted(self: TorchFile, key: str) -> bytearray:
        read.append(key)
        return original(self, key)

    monkeypatch.setattr(TorchFile, "record", counted)
    torch.save(lightning_value(small_model()), tmp_path / "w.ckpt")
    with TorchFile(tmp_path / "w.ckpt") as file:
        assert read == []
        file.value["state_dict"]["model.lm_head.weight"].materialize()
        assert len(read) == 1


class Tensor2:
    """A hand-made tensor: pickles as torch's own would, with any numbers."""

    def __init__(self, offset: Any, shape: Any, stride: Any) -> None:
        self.numbers = (offset, shape, stride)

    def __reduce__(self) -> Any:
        offset, shape, stride = self.numbers
        hooks: Any = collections.OrderedDict()
        return torch._utils._rebuild_tensor_v2, (STORAGE, offset, shape, stride, False, hooks)


STORAGE = object()


def write_tensor(path: Path, tensor: Tensor2, *, numel: int = 4, raw: bytes = b"\0" * 16) -> Path:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", numel) if obj is STORAGE else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump({"w": tensor})
    return torch_zip(path, buffer.getvalue(), {"0": raw})


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 2), (3, 1)),
        (0, (2,), (2**62,)),
        (2**63, (1,), (1,)),
        (-1, (2,), (1,)),
        (3, (2,), (-1,)),
        (0, (-1, -4), (1, 1)),
        (0, (2**40, 2**40), (0, 0)),
        (0, (100,), (0,)),
        (0, (2,), (1, 1)),
        (0, (2.0,), (1,)),
        (0, (True,), (1,)),
        (0, "ab", (1,)),
    ],
)
def test_tensors_out_of_bounds_are_refused(
    tmp_path: Path, offset: Any, shape: Any, stride: Any
) -> None:
    path = write_tensor(tmp_path / "oob.pt", Tensor2(offset, shape, stride))
    with pytest.raises(InputError, match=r"oob\.pt"), TorchFile(path):
        pass


def test_the_hand_made_tensor_is_read_where_its_numbers_are_right(tmp_path: Path) -> None:
    path = write_tensor(
        tmp_path / "w.pt", Tensor2(1, (3,), (1,)), raw=np.arange(4, dtype="<f4").tobytes()
    )
    with TorchFile(path) as file:
        assert file.value["w"].materialize().tolist() == [1.0, 2.0, 3.0]


def test_a_storage_longer_than_its_record_is_refused(tmp_path: Path) -> None:
    path = write_tensor(tmp_path / "w.pt", Tensor2(0, (8,), (1,)), numel=8)
    with pytest.raises(InputError, match="claims 8 values but its record holds 4"), TorchFile(path):
        pass


def test_a_compressed_record_is_refused(tmp_path: Path) -> None:
    plain = write_tensor(tmp_path / "w.pt", Tensor2(0, (4,), (1,)))
    packed = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(plain) as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(InputError, match="is compressed"), TorchFile(packed):
        pass


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    torch.save({"w": torch.full((64,), 1.25)}, tmp_path / "w.pt")
    raw = bytearray((tmp_path / "w.pt").read_bytes())
    at = raw.index(torch.full((64,), 1.25).numpy().tobytes())
    raw[at + 5] ^= 1
    (tmp_path / "w.pt").write_bytes(raw)
    with (
        TorchFile(tmp_path / "w.pt") as file,
        pytest.raises(InputError, match=r"w/data/0 is damaged .*fetch the file again"),
    ):
        file.value["w"].materialize()


def test_every_truncation_is_a_clean_error(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(8)}, tmp_path / "w.pt")
    raw = (tmp_path / "w.pt").read_bytes()
    for length in range(0, len(raw), 37):
        (tmp_path / "cut.pt").write_bytes(raw[:length])
        with pytest.raises(InputError, match=r"cut\.pt"), TorchFile(tmp_path / "cut.pt"):
            pass


def test_the_old_format_is_named_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"before PyTorch 1\.6.*torch\.save"), TorchFile(path):
        pass


def test_other_zip_files_and_missing_files_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(InputError, match=r"0 'NAME/data\.pkl' records"):
        TorchFile(tmp_path / "a.zip")
    with pytest.raises(InputError, match="No such file"):
        TorchFile(tmp_path / "nothing.pt")


def test_a_persistent_id_that_is_no_storage_is_refused(tmp_path: Path) -> None:
    path = torch_zip(tmp_path / "x.pt", b"\x80\x02X\x05\x00\x00\x00helloQ.")
    with pytest.raises(InputError, match="no storage of numbers"):
        TorchFile(path)


def test_omegaconf_objects_are_inert(tmp_path: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    conf = omegaconf.OmegaConf.create({"model": {"d_model": 8, "layer": {"l_max": 34}}, "l": [1]})
    torch.save({"hyper_parameters": conf}, tmp_path / "w.ckpt", pickle_protocol=2)
    with TorchFile(tmp_path / "w.ckpt") as file:
        held = file.value["hyper_parameters"]
    assert isinstance(held, Inert)
    assert held.kind == Global("omegaconf.dictconfig", "DictConfig")
