"""report.md and the terminal's tables, of whole runs and of runs that ended early."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import pytest
from rich.console import Console

from irl_exp.report import page
from irl_exp.report.run import NOT_APPLICABLE
from irl_exp.report.tables import LONGEST_TEXT, escape

SECTIONS = [
    "What this run found",
    "Policies",
    "Recovered reward and controls",
    "What the demonstrations decide",
    "What R̂ goes by",
    "What stands out",
    "Figures",
    "Samples",
    "Time",
    "Files",
]


def sections(report: str) -> dict[str, str]:
    """Heading -> what stands below it; the part above the first heading as ""."""
    head, *rest = re.split(r"^## ", report, flags=re.MULTILINE)
    return {"": head} | {part.split("\n", 1)[0]: part.split("\n", 1)[1] for part in rest}


def grid(section: str) -> list[list[str]]:
    """The cells of a section's table, without the rule below the header."""
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[cell.strip() for cell in row] for i, row in enumerate(rows) if i != 1]


def written(folder: Path) -> dict[str, str]:
    path = page.write(folder)
    assert path == folder / "report.md"
    return sections(path.read_text(encoding="utf-8"))


def shown(folder: Path, **environment: str) -> list[str]:
    """What `show` prints to a pipe, in a process of its own; lines without trailing spaces."""
    code = "import sys; from irl_exp.report import page as p; p.show(p.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return [line.rstrip() for line in done.stdout.splitlines()]


def end_at(folder: Path, *prefixes: str) -> None:
    """Keep the numbers of the summary that start with a prefix, as if `until` had ended the run."""
    summary = json.loads((folder / "summary.json").read_text())
    kept = {name: value for name, value in summary.items() if name.startswith(prefixes)}
    (folder / "summary.json").write_text(json.dumps(kept))
    for name in ("panel", "identified", "attribution", "findings"):
        (folder / f"{name}.parquet").unlink()


# --- the page -------------------------------------------------------------------------------------


def test_a_whole_run_has_every_section_in_order(run_folder: Path) -> None:
    report = written(run_folder)

    assert list(report) == ["", *SECTIONS]
    assert report[""].startswith("# Run 1a2b3c4d\n")
    assert "irl-exp solver=hinge rlhf.kl_coef=0.3" in report[""]
    assert "; commit 0123456789; seeds data 0, policy 0, recovery 0." in report[""]


def test_every_link_leads_somewhere(run_folder: Path) -> None:
    page.write(run_folder)
    text = (run_folder / "report.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[\w+\]\((.+?)\)", text)

    names = ("losses", "alignment", "toxicity", "scores", "roc", "identified", "attribution")
    assert pictures == [f"figures/{name}.png" for name in names]
    for picture in pictures:
        assert matplotlib.image.imread(run_folder / picture).size > 100_000, picture
    for link in re.findall(r"(?<!!)\[[^\]]+\]\((.+?)\)", text):
        assert (run_folder / link).is_file(), link


def test_identified_numbers_come_first(run_folder: Path) -> None:
    found = written(run_folder)["What this run found"]
    order = ["0.842 [0.833, 0.851]", "STARC distance", "AUC", "Pearson", "0.743 [", "Does R̂ work"]
    places = [found.index(text) for text in order]
    assert places == sorted(places)


def test_tables_have_a_row_for_each_control(run_folder: Path) -> None:
    table = grid(written(run_folder)["Recovered reward and controls"])
    assert {len(row) for row in table} == {4}
    assert ["log_ratio", *[NOT_APPLICABLE] * 3] in table


def test_what_the_demonstrations_decide_stands_between_how_good_and_what_by(
    run_folder: Path,
) -> None:
    found = written(run_folder)["What this run found"]
    questions = re.findall(r"\*\*(.+?)\*\*", found)
    place = questions.index("What do the demonstrations decide?")
    assert questions[place - 1 : place + 2 : 2] == ["How good is R̂?", "What does R̂ go by?"]
    paragraph = found.split("\n\n")[place]
    for number in ("0.848 [0.802, 0.894]", "0.121 [", "0.044 [0.026", "0.489 ["):
        assert number in paragraph


def test_sentences_without_a_meaning_are_left_out(
    run_folder: Path, rewrite: Callable[..., None]
) -> None:
    rewrite(run_folder / "summary.json", **{"recovery/starc_floor": NOT_APPLICABLE})
    found = written(run_folder)["What this run found"]
    assert "A second R*" not in found
    assert NOT_APPLICABLE not in found


def test_warnings_come_before_all_numbers(run_folder: Path, rewrite: Callable[..., None]) -> None:
    rewrite(run_folder / "status.json", warnings=["align stopped\nearly", "second | warning"])
    report = written(run_folder)

    assert "> **Warning:** align stopped early\n>\n> **Warning:** second \\| warning" in report[""]
    assert "[0." not in report[""]  # no interval, and so no result, above the first heading


def test_a_failed_run_says_so_first(run_folder: Path, rewrite: Callable[..., None]) -> None:
    failure = {"status": "failed", "error": "ValueError: got NaN\n  at step 3"}
    rewrite(run_folder / "status.json", **failure)
    warning = "> **Warning:** this run is failed: ValueError: got NaN at step 3"
    assert warning in written(run_folder)[""].splitlines()


def test_a_run_until_pretrain(run_folder: Path) -> None:
    end_at(run_folder, "comments/", "model/", "time/curate", "time/pretrain", "store/")
    (run_folder / "samples.jsonl").unlink()
    curves = (run_folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in curves if json.loads(line)["step"] == "pretrain"]
    (run_folder / "metrics.jsonl").write_text("".join(kept))

    report = written(run_folder)
    assert list(report) == ["", "What this run found", "Figures", "Time", "Files"]
    assert report["What this run found"].strip().startswith("**Which comments?** ")
    assert re.findall(r"!\[(\w+)\]", report["Figures"]) == ["losses"]
    assert "samples.jsonl" not in report["Files"]


def test_a_run_until_recover(run_folder: Path) -> None:
    end_at(run_folder, "ground_truth/", "policy/reference/", "policy/aligned/", "time/", "store/")
    samples = (run_folder / "samples.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in samples if json.loads(line)["policy"] != "realigned"]
    (run_folder / "samples.jsonl").write_text("".join(kept))

    report = written(run_folder)
    later = SECTIONS[2:6]
    assert list(report) == ["", *(s for s in SECTIONS if s not in later)]
    assert "Is the expert aligned?" in report["What this run found"]
    assert "Does R̂ work" not in report["What this run found"]
    assert grid(report["Policies"])[0] == ["policy", "reference", "aligned"]
    assert grid(report["Samples"])[0] == ["prompt", "reference", "aligned"]


def test_a_run_that_was_killed_before_it_wrote_anything(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"status": "running"}')
    report = written(tmp_path)
    assert list(report) == ["", "Files"]
    assert "this run is running" in report[""]


def test_a_line_that_was_being_written_is_left_out(run_folder: Path) -> None:
    with (run_folder / "samples.jsonl").open("a") as lines:
        lines.write('{"policy": "realigned", "pro')
    assert "Samples" in written(run_folder)


def test_no_text_of_a_policy_breaks_the_table(run_folder: Path) -> None:
    nasty = "a | b\nc <b>*d*</b> `e` [f](g) \x00 ~~h~~"
    samples = [
        {"policy": policy, "prompt": "Your last\tedit |", "completion": nasty, "truth": 1.0}
        for policy in ("reference", "aligned")
    ]
    lines = "".join(json.dumps(sample) + "\n" for sample in samples)
    (run_folder / "samples.jsonl").write_text(lines)

    table = grid(written(run_folder)["Samples"])
    cell = r"a \| b c \<b>\*d\*\</b> \`e\` \[f\](g) � \~\~h\~\~ (1.00)"
    assert table == [["prompt", "reference", "aligned"], [r"Your last edit \|", cell, cell]]


def test_samples_are_the_first_prompts_that_all_policies_answered(run_folder: Path) -> None:
    table = grid(written(run_folder)["Samples"])
    prompts = [f"Your last {t} edit:" for t in ("harbour", "castle", "tulip", "chess", "opera")]
    assert [row[0] for row in table[1:]] == prompts
    assert table[1][1] == "you are a silly goose, and the map is late. (-2.35)"


def test_long_texts_are_cut() -> None:
    text = escape("word " * 100)
    assert len(text) == LONGEST_TEXT + 1
    assert text.endswith("…")


def test_times_in_the_order_of_the_steps(run_folder: Path) -> None:
    times = written(run_folder)["Time"]
    assert times.startswith("\nSeconds: curate 0.0, pretrain 3.2, ground_truth 6.4, align 9.6")
    assert "total 312.4. Steps found in the store: 0; computed: 16." in times


def test_a_folder_of_no_run_is_refused(tmp_path: Path) -> None:
    for reader in (page.write, page.show):
        with pytest.raises(FileNotFoundError, match="expected the directory of a run"):
            reader(tmp_path)


# --- the terminal ---------------------------------------------------------------------------------


def test_nothing_is_cut_at_80_columns_and_in_a_pipe(
    run_folder: Path, rewrite: Callable[..., None]
) -> None:
    no_meaning = {f"policy/{p}/perplexity": NOT_APPLICABLE for p in ("aligned", "realigned")}
    rewrite(run_folder / "summary.json", **no_meaning)
    lines = shown(run_folder, COLUMNS="80")

    text = "\n".join(lines)
    assert "…" not in text and "\x1b" not in text
    assert max(map(len, lines[:-1])) <= 80
    header = next(line for line in lines if line.startswith("policy"))
    assert header.split() == ["policy", "reference", "aligned", "realigned"]
    for name in (*page.tables.POLICY_MEASURES.values(), "recovered", "log_ratio", "second R*"):
        assert any(line.startswith(f"{name}  ") for line in lines), name
    assert "perplexity of held-out comments" in text
    assert next(line for line in lines if line.startswith("perplexity")).count(NOT_APPLICABLE) == 2


def test_the_last_line_is_the_path_in_one_piece(run_folder: Path) -> None:
    deep = run_folder.parent.joinpath(*["a folder with a long name"] * 6)
    deep.parent.mkdir(parents=True)
    run_folder.rename(deep)
    lines = shown(deep, COLUMNS="40")
    assert lines[-1] == f"report: {deep / 'report.md'}"


def test_warnings_stand_right_above_the_path(
    run_folder: Path, rewrite: Callable[..., None]
) -> None:
    rewrite(run_folder / "status.json", warnings=["[red]not markup[/red] :smile:"])
    lines = shown(run_folder, COLUMNS="80")
    assert lines[-2] == "warning: [red]not markup[/red] :smile:"


def test_a_run_says_where_its_rewards_are(run_folder: Path, rewrite: Callable[..., None]) -> None:
    rewrite(run_folder / "manifest.json", steps={"ground_truth": "aa", "recover": "bb"})
    assert shown(run_folder)[-3:-1] == [
        "ground-truth reward: outputs/store/ground_truth/aa",
        "recovered reward: outputs/store/recover/bb",
    ]
    assert "`outputs/store/recover/bb`" in page.write(run_folder).read_text()


def test_a_run_without_numbers_shows_its_path_alone(
    run_folder: Path, rewrite: Callable[..., None]
) -> None:
    for name in ("summary.json", "findings.parquet"):
        (run_folder / name).unlink()
    rewrite(run_folder / "manifest.json", steps={"curate": "aa"})
    assert shown(run_folder) == [f"report: {run_folder / 'report.md'}"]


def test_narrow_terminals_fold_and_do_not_cut(run_folder: Path) -> None:
    table = page.tables.recovery(page.Run.read(run_folder))
    assert table is not None
    console = Console(file=io.StringIO(), width=50)
    console.print(table.terminal())
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in output
    assert max(map(len, output.splitlines())) <= 50
