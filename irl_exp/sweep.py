"""How far a sweep has come, said while it runs and at its end.

Its runs may be made by other processes and on other machines: what they share is the sweep's
folder. There each run that ends adds a line to ended.jsonl, which whoever launched them reads.
"""

import json
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

ENDED = "ended.jsonl"
# How a run can end, as they are counted; skipped: it was done before, or another process is at it.
DONE, FAILED, INTERRUPTED, SKIPPED = "done", "failed", "interrupted", "skipped"
SECONDS_BETWEEN_LOOKS = 1.0


def note(folder: Path, run: str, how: str, why: str | None = None) -> None:
    """That a run has ended, how, and why so if it failed: `run` is its folder in the sweep's."""
    line = json.dumps({"run": run, "how": how, "why": why, "at": round(time.time(), 1)})
    with (folder / ENDED).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


class Progress(threading.Thread):
    """Says after each run of one launch how many are over, and when the others may be.

    `total` is how many runs were launched, None if that is not known.
    """

    def __init__(self, folder: Path, total: int | None) -> None:
        super().__init__(daemon=True)
        self.path = folder / ENDED
        self.total = total
        self.started = time.monotonic()
        self.read_to = self.path.stat().st_size if self.path.exists() else 0
        self.ended: dict[str, str] = {}
        self.failed: dict[str, str] = {}  # why
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(SECONDS_BETWEEN_LOOKS):
            if self._look() and self.total != len(self.ended):
                with suppress(BrokenPipeError):  # who reads us has seen enough
                    print(f"{self.so_far()}{self._ahead()}", flush=True)

    def conclude(self) -> str:
        """What became of all runs: the last line of a launch."""
        self.over.set()
        self.join()
        self._look()
        return self.so_far()

    def so_far(self) -> str:
        counts = Counter(self.ended.values())
        kinds = (DONE, FAILED, INTERRUPTED, SKIPPED)
        said = ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts[kind] or kind == DONE)
        of = "" if self.total is None else f" of {self.total}"
        return f"{len(self.ended)}{of} runs over in {span(time.monotonic() - self.started)}: {said}"

    def _ahead(self) -> str:
        """The time that is left if runs that compute go on to take what they took."""
        done = sum(how == DONE for how in self.ended.values())
        if self.total is None or not done:
            return ""
        left = (time.monotonic() - self.started) / done * (self.total - len(self.ended))
        return f"; at this pace {span(left)} to go"

    def _look(self) -> bool:
        """Whether more have ended since the last look."""
        if not self.path.exists():
            return False
        with self.path.open("rb") as file:
            file.seek(self.read_to)
            found = file.read()
        whole = found[: found.rfind(b"\n") + 1]  # a line may be on its way
        self.read_to += len(whole)
        for line in map(json.loads, whole.splitlines()):
            # Another launch may do what this one passes over: that it was done is what counts.
            if line["how"] != SKIPPED or line["run"] not in self.ended:
                self.ended[line["run"]] = line["how"]
                self.failed.pop(line["run"], None)
                if line["how"] == FAILED:
                    self.failed[line["run"]] = line.get("why") or "see its status.json"
        return bool(whole)


def span(seconds: float) -> str:
    """75 -> 1 min; rounded to what a person waits by."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
