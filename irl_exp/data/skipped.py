"""What becomes of a row that cannot be read: it stops the reading, or it is skipped and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from irl_exp.config import FileDemonstrations, InputError, TableDataset

# Is told what is wrong with a row; where it comes back, the row is left out.
Refuse = Callable[[InputError], None]

_FILE = "skipped.txt"
# Reasons that are kept.
_MOST = 100


def stop(error: InputError) -> None:
    """No row is left out."""
    raise error


@dataclass
class Skipped:
    """Rows that are left out: how many, and why, of the first hundred. `source` is what a reason
    would begin with: where the file lies, which need not be said again."""

    source: str
    count: int = 0
    reasons: list[str] = field(default_factory=list)

    @classmethod
    def asked(cls, config: TableDataset | FileDemonstrations) -> Skipped | None:
        """By on_error=skip; else none."""
        if config.on_error != "skip":
            return None
        place = Path(config.path).expanduser().absolute()
        return cls(str(place) if place.is_file() else config.path)

    def __call__(self, error: InputError) -> None:
        self.count += 1
        if self.count <= _MOST:
            self.reasons.append(str(error).removeprefix(self.source).lstrip(", "))

    def beside(self, error: InputError) -> InputError:
        """An error that they may be the reason of, with what is to be said of them."""
        known = not self.count or str(self) in str(error)
        return error if known else InputError(f"{error}; {self}")

    def __str__(self) -> str:
        some = "1 row was" if self.count == 1 else f"{self.count} rows were"
        return f"{some} skipped, the first for this: {self.reasons[0]}" if self.count else ""

    def become(self, other: Skipped) -> None:
        """What another has counted, who has gone through all rows."""
        self.count, self.reasons = other.count, other.reasons

    def save(self, folder: Path) -> None:
        """`skipped.txt`: how many, then why, a line for each row."""
        lines = [str(self.count), *self.reasons]
        (folder / _FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Skipped:
        """What `save` wrote."""
        count, *reasons = (folder / _FILE).read_text(encoding="utf-8").splitlines()
        return cls("", int(count), reasons)
