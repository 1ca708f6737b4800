"""Faults that a command of tests.warm brings upon itself: IRL_EXP_FAULT says which.

``after 2.5``   killed that many seconds after it begins
``at 120``      killed before its 120th change to a file below its working directory
``clock 3600``   not at all; each look at the clock finds it so many seconds earlier than the last
``count NAME``  not at all; the number of such changes is written to the file when it ends

Kills are SIGKILL: nothing is closed, flushed or released. Training keeps its checkpoint ten times a
second, so that there is always one that is half written, or just published, to be killed at.
"""

import atexit
import itertools
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from irl_exp.modules import training

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def begin(fault: str) -> None:
    training.CHECKPOINT_SECONDS, training.COST_FACTOR = 0.1, 1.0
    kind, value = fault.split(" ", 1)
    if kind == "after":
        timer = threading.Timer(float(value), _die)
        timer.daemon = True
        timer.start()
        return
    if kind == "clock":
        now = time.time()
        looks = itertools.count()
        time.time = lambda: now - float(value) * next(looks)
        time.time_ns = lambda: int(time.time() * 1e9)
        return
    below, changes, fatal = os.getcwd(), 0, int(value) if kind == "at" else None

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal changes
        if event in CHANGES or (event == "open" and args[2] & WRITES):
            place = args[0]
            if not isinstance(place, str | bytes):
                return
            if os.path.abspath(os.fsdecode(place)).startswith(below):
                changes += 1
                if changes == fatal:
                    _die()

    sys.addaudithook(watch)
    if kind == "count":
        atexit.register(lambda: Path(value).write_text(str(changes)))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
