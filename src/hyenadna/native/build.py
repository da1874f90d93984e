"""The compiled kernels of this machine, or the reason why there are none.

One C++ compiler call of a few seconds, kept in the cache folder under a name made of the sources,
the compiler and the processor. HYENADNA_NATIVE=0 switches the kernels off.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import Final

_SOURCES: Final = Path(__file__).parent
_COMPILERS: Final = ("c++", "g++", "clang++")
_FLAGS: Final = (
    "-O3",
    "-std=c++17",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
)
# The first set that the compiler accepts and whose result loads.
_TARGETS: Final = (
    ("-march=native", "-mprefer-vector-width=512"),
    ("-march=native",),
    ("-mcpu=native",),
    (),
)
_log = logging.getLogger(__name__)


_lock = threading.Lock()
_found: list[tuple[ctypes.CDLL | None, str]] = []


def _outcome() -> tuple[ctypes.CDLL | None, str]:
    with _lock:  # two threads must not compile at once
        if not _found:
            _found.append(_find())
    return _found[0]


def _find() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("HYENADNA_NATIVE") == "0":
        return None, "HYENADNA_NATIVE=0"
    compiler = _compiler()
    if compiler is None:
        return None, f"no C++ compiler ({', '.join(_COMPILERS)})"
    try:
        path = _folder() / f"kernels-{_key(compiler)}.so"
        if path.exists():
            try:
                return ctypes.CDLL(str(path)), ""
            except OSError:
                path.unlink(missing_ok=True)  # damaged: once more
        return _compile(compiler, path), ""
    except (OSError, subprocess.SubprocessError) as error:
        reason = " ".join(str(error).split())[:300]
        _log.warning("native kernels are off: %s", reason)
        return None, reason


def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be had; compiles them at the first call."""
    return _outcome()[0]


def expected() -> bool:
    """Whether there should be native kernels here: switched on, and a compiler is there."""
    return os.environ.get("HYENADNA_NATIVE") != "0" and _compiler() is not None


def must_compile() -> bool:
    """Whether the first call of `library` will compile them, which takes some seconds."""
    compiler = _compiler()
    if compiler is None or os.environ.get("HYENADNA_NATIVE") == "0":
        return False
    try:
        return not (_folder() / f"kernels-{_key(compiler)}.so").exists()
    except (OSError, subprocess.SubprocessError):
        return False


def why_not() -> str:
    """Why there are no native kernels, in one line; empty where there are."""
    return _outcome()[1]


def _compiler() -> tuple[str, ...] | None:
    """The command, words of `CXX` or the first that is there."""
    given = tuple(shlex.split(os.environ.get("CXX", "")))
    return given or next(((name,) for name in _COMPILERS if shutil.which(name)), None)


@lru_cache(maxsize=1)
def _folder() -> Path:
    base = os.environ.get("HYENADNA_CACHE")
    try:
        folder = (Path(base) if base else Path.home() / ".cache" / "hyenadna") / "native"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        pass
    # A home that cannot be written, as on some clusters: compiled anew in each process.
    return Path(tempfile.mkdtemp(prefix="hyenadna-native-"))


def _key(compiler: tuple[str, ...]) -> str:
    """Hash of all that the result depends on."""
    digest = hashlib.sha256()
    for source in sorted([*_SOURCES.glob("*.h"), *_SOURCES.glob("*.cpp")]):
        digest.update(source.read_bytes())
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True, timeout=60)
    digest.update(version.stdout)
    digest.update(repr((_FLAGS, _TARGETS, platform.machine(), _processor())).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """What `-march=native` looks at: the processor's features, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _compile(compiler: tuple[str, ...], path: Path) -> ctypes.CDLL:
    """Compiles into a file beside and renames it, so that no process sees half of one."""
    error = ""
    for target in _TARGETS:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix="kernels-", suffix=".tmp")
        os.close(handle)
        beside = Path(name)
        try:
            command = [*compiler, *_FLAGS, *target, "-pthread", "-o", name]
            done = subprocess.run(
                [*command, str(_SOURCES / "kernels.cpp")],
                capture_output=True,
                text=True,
                timeout=600,
            )
            if done.returncode == 0:
                found = ctypes.CDLL(name)  # raises where the result does not load
                beside.replace(path)
                return found
            said = next(iter(done.stderr.splitlines()), f"exit code {done.returncode}")
        except OSError as problem:
            said = str(problem)
        finally:
            beside.unlink(missing_ok=True)
        error = error or said
    raise OSError(f"{' '.join(compiler)} failed: {error}")
