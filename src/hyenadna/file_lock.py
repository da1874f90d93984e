"""A file that one process holds, so that two do not write the same results."""

from __future__ import annotations

from typing import IO


def hold(file: IO[str] | int) -> bool:
    """Whether the open file (or its descriptor) is held from now on, until it is closed.

    True as well where the system or the file system has no such locks.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True
