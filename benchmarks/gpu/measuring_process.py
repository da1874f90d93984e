"""The measuring process as its parent sees it: asked for one result at a time, and replaceable.

A kernel that reads outside of its memory ends a whole CUDA process, and one that hangs can only be
killed. So another process measures; where it dies, the contestant that ran is found out, gets an
error in its row, and the job is done again without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.jobs import Job
from benchmarks.processes import ROOT, python_path, signal_name

START_SECONDS: Final = 180.0
PATIENCE: Final = 4.0
"""A try of a job may take so many times as long as guessed, and a minute more."""
COMMAND: Final = (sys.executable, "-m", "benchmarks.gpu.worker")


class Lost(Exception):
    """The process has ended, or was killed for lack of patience."""


class Worker:
    """A running process. log: file that its messages go to."""

    def __init__(self, device: str, *, toy: bool, log: Path, command: tuple[str, ...] = COMMAND):
        self.device, self.toy, self.log, self.command = device, toy, log, command
        self.at = ""
        self.host: dict[str, Any] = {}
        self._start()

    def _start(self, seconds: float = START_SECONDS) -> None:
        words = [*self.command, self.device, "toy" if self.toy else "full"]
        environment = os.environ | {"PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1"}
        if self.device == "cpu":  # a trial: two threads beside a busy process wait for each other
            environment["OMP_NUM_THREADS"] = "1"
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                words, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True,
            )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self._lines, self._process), daemon=True).start()
        self.host = self._await("HOST", seconds)

    @staticmethod
    def _read(lines: queue.Queue[str | None], process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    def _await(self, word: str, seconds: float) -> Any:
        """The value of the next line that begins with the word. Raises Lost."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                self._kill()
                raise Lost(f"stopped after {seconds:.0f} s") from None
            if line is None:
                raise Lost(self._ending())
            found, _, rest = line.partition(" ")
            if found == "AT":
                self.at = json.loads(rest)
            elif found == "BROKEN":
                self._kill()
                raise Lost(json.loads(rest))
            elif found == word:
                return json.loads(rest)

    def _ending(self) -> str:
        code = self._process.wait()
        if code < 0:
            return f"the process was ended by {signal_name(-code)}"
        lines = self.log.read_text(errors="replace").splitlines() or [""]
        return f"the process ended with code {code}: {lines[-1]}"[:300]

    def _kill(self) -> None:
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in the driver
            self._process.wait(timeout=20)

    def measure(
        self, job: Job, patience: float, seconds: float, room: float = math.inf
    ) -> dict[str, Any]:
        """The result of the job; `{"error": one line}` where there is none.

        Contestants that end the process, or hang, get an error each, and the job begins again
        without them. patience: seconds of a try until its process is killed. seconds: that a try
        may take where it can choose. room: seconds of all tries.
        """
        lost: dict[str, dict[str, Any]] = {}
        end = time.monotonic() + room
        while True:
            if self._process.poll() is not None:
                try:
                    self._start(min(START_SECONDS, max(1.0, end - time.monotonic())))
                except Lost as error:
                    return {"error": f"no process: {error}"}
            names = tuple(name for name in job.contestants if name not in lost)
            if job.contestants and not names:
                return {"contestants": lost}
            asked = dataclasses.replace(job, contestants=names)
            self.at = ""
            try:
                self._ask(asked, seconds)
                most = min(patience, max(1.0, end - time.monotonic()))
                result: dict[str, Any] = self._await("RESULT", most)
            except Lost as error:
                if self.at not in names or time.monotonic() > end:
                    return {"error": str(error), **({"contestants": lost} if lost else {})}
                lost[self.at] = {"error": str(error)}
                continue
            if lost and "contestants" in result:
                result["contestants"] |= lost
            return result

    def _ask(self, job: Job, seconds: float) -> None:
        assert self._process.stdin is not None
        try:
            print(json.dumps({"job": job.to_dict(), "seconds": seconds}),
                  file=self._process.stdin, flush=True)  # fmt: skip
        except BrokenPipeError:
            raise Lost(self._ending()) from None

    def close(self) -> None:
        """Ends the process."""
        self._kill()
