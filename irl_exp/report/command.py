"""irl-report: runs and sweeps side by side, as tables, figures and a page; with `released`, the
result files of the paper."""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from irl_exp import full_disk
from irl_exp.config import InputError
from irl_exp.report import NoReport

if TYPE_CHECKING:
    from irl_exp.report.document import Report

# The word before a folder of the paper's result files.
RELEASED = "released"
# In the folder of a report: the files that are its own, and the digest of each; null while it is
# being written.
OWN = ".irl-report.json"
Own = dict[str, str | None]


def main() -> None:
    """Console script: the report, or one line that says what is wrong."""
    words = sys.argv[1:]
    try:
        if words[:1] == [RELEASED]:
            options = parse_released(words[1:])
            run_released(options.folder, options.output)
        else:
            options = parse(words)
            run(options.folders, options.output)
    except BrokenPipeError:
        # Who reads us has seen enough: leave without a word, also when the interpreter flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (NoReport, InputError) as error:
        sys.exit(f"irl-report: {error}")
    except OSError as error:
        sys.exit(f"irl-report: {error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit("irl-report: interrupted")


def parse(words: list[str]) -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        prog="irl-report",
        description="Compare runs: means over seeds, distances between the rewards that they "
        "recovered, curves along what varied.",
        epilog="Writes index.html, report.md, figures/ and tables (CSV, Parquet). Of what is in "
        "OUT already, only what an earlier report wrote, and nobody changed, is replaced. "
        f"`irl-report {RELEASED} DIR` recomputes the paper's results from its released files (runs "
        f"in a folder of that name: irl-report ./{RELEASED}).",
    )
    parser.add_argument(
        "folders",
        metavar="DIR",
        nargs="+",
        type=Path,
        help="the directory of a run, or a folder with such below it, like that of a sweep",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        help="where the report goes (default: report/ in DIR, if that is one folder and no run)",
    )
    return parser.parse_args(words)


def parse_released(words: list[str]) -> argparse.Namespace:
    """What was typed after `released`."""
    parser = argparse.ArgumentParser(
        prog=f"irl-report {RELEASED}",
        description="Recompute the paper's results from the files that its authors released: what "
        "the best reward is the best of, thresholds, curves, toxicity.",
        epilog='Files are known by their form: rewards by "true_reward", curves by '
        '"accuracies". Writes index.html, report.md, figures/ and CSV.',
    )
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="a folder with released JSON files below it"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        help="where the report goes (default: report/ in DIR)",
    )
    return parser.parse_args(words)


def run(folders: list[Path], output: Path | None) -> None:
    from irl_exp.report.collect import collect  # --help need not wait for tables of pandas

    runs = collect(folders)
    if output is None:
        one_run = (folders[0] / "status.json").is_file()
        if one_run or len(folders) > 1:
            what = f"{folders[0]}: one run" if one_run else f"{len(folders)} folders"
            raise NoReport(f"{what}; expected -o OUT, where the report is to go")
        output = folders[0] / "report"
    refuse_strangers(output, ())  # before the work; again with the names, when they are known
    # What draws is heavy: bad input is answered at once.
    from irl_exp.report import sweep_page

    _publish(sweep_page.report(runs), output)


def run_released(folder: Path, output: Path | None) -> None:
    """Raises NoReport for a folder without such files, and for one that cannot be written to."""
    # Here and not above, as it draws and measures.
    from irl_exp.report import released, released_page

    found = released.read(folder)
    if output is None:
        if not os.access(folder, os.W_OK):
            raise NoReport(f"{folder}: not to be written to; expected -o OUT for the report")
        output = folder / "report"
    refuse_strangers(output, ())
    _publish(released_page.report(found), output)


def _publish(found: "Report", output: Path) -> None:
    from irl_exp.report import document, web

    files = document.files(found)
    beside = sorted(name for name in files if "/" not in name)
    write(output, files | {document.PAGE_FILE: web.page(found, output, beside)})
    document.show(found, output)


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a report's files, and remove those of an earlier one that it has no more.

    Raises:
        NoReport: if it would write over what no report wrote; then nothing is written.
        InputError: the disk is full.
    """
    earlier = refuse_strangers(folder, files)
    folder.mkdir(parents=True, exist_ok=True)
    with full_disk.named(folder):
        # First, so that whatever is written by a report that is killed is known as its own.
        _note(folder, {**earlier, **dict.fromkeys(files)})
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        for name in earlier.keys() - files.keys():
            if _as_written(folder / name, earlier[name]):
                (folder / name).unlink(missing_ok=True)
        _note(folder, {name: _digest(content) for name, content in files.items()})


def refuse_strangers(folder: Path, names: Mapping[str, bytes] | tuple[()]) -> Own:
    """What an earlier report wrote there; none of the names may be of another's hand."""
    if folder.exists() and not folder.is_dir():
        raise NoReport(f"{folder}: a file; expected a folder, or a new name")
    own = folder / OWN
    try:
        earlier: Own = dict(json.loads(own.read_text())) if own.is_file() else {}
    except (ValueError, TypeError) as error:
        raise NoReport(f"{own}: damaged; remove it, and what the report wrote") from error
    for name in names:
        if not os.path.lexists(folder / name):
            continue
        if name not in earlier:
            raise NoReport(f"{folder / name}: not written by irl-report; expected another OUT")
        if not _as_written(folder / name, earlier[name]):
            raise NoReport(
                f"{folder / name}: changed since irl-report wrote it; move it away, or name "
                "another OUT"
            )
    return earlier


def _note(folder: Path, own: Own) -> None:
    half = folder / f"{OWN}.part"
    half.write_text(json.dumps(own, indent=2, sort_keys=True) + "\n")
    os.replace(half, folder / OWN)


def _as_written(path: Path, digest: str | None) -> bool:
    return digest is None or not path.is_file() or _digest(path.read_bytes()) == digest


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main()
