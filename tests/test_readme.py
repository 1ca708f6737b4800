"""Every command that README.md shows in a bash block runs, exactly as it stands.

They run in their order in one folder, in which lies what they speak of: comments.csv, texts.jsonl,
path/to/model and what was aligned from it, path/to/classifier, pairs, prompts. A bash function
named irl-exp adds what makes a study small.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from irl_exp.data import synthetic
from tests import warm
from tests.materials import save_classifier, save_language_model, teach

README = Path(__file__).parent.parent / "README.md"
# What sets up a checkout, what needs a value that only the reader has, and what needs a network.
SKIPPED = re.compile(
    r"(make|git|cd|pip|source|python3? -m venv)\b"
    r"|.*(\b(FOLDER|PATH|DIR|ORGANIZATION)\b|your-)"
    r"|.*\b(model=pythia-|dataset=(jigsaw|civil_comments|real_toxicity_prompts)\b)"
)
# Hydra takes what is typed over what an overlay says: the README's own choices stay as they are.
SMALL = (
    "+debug=smoke dataset.size=800 dataset.max_new_tokens=8 "
    "demonstrations.prompts=16 demonstrations.test_prompts=16 evaluation.draws=10"
)
SMALL_AUDIT = (
    "dataset.max_new_tokens=8 solver.members=2 evaluation.draws=10 evaluation.interpret_texts=16 "
    "evaluation.identify_pairs=10 trainer.threads=1"
)
# Tests share their machine: one thread each.
SHELL = f"""
irl-exp() {{
    case "$*" in
        *--cfg* | *--help* | *--info*) command irl-exp "$@" ;;
        *+experiment=audit*) command irl-exp "$@" {SMALL_AUDIT} ;;
        *+debug=*) command irl-exp "$@" trainer.threads=1 ;;
        *) command irl-exp "$@" {SMALL} trainer.threads=1 ;;
    esac
}}
"""


def commands(text: str) -> list[str]:
    """The commands in ```bash blocks, continued lines as one, without comments and SKIPPED."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return [command for command in found if not SKIPPED.match(command)]


def text() -> str:
    return README.read_text(encoding="utf-8") if README.is_file() else ""


def test_commands_of_a_readme() -> None:
    readme = """
# A title, and a line `irl-exp seed=1` that is not in a block

```bash
cd irl_exp   # the clone
make demo
# a comment
irl-exp -m 'seed=range(0,5)' \\
    solver=hinge   # five runs
```

```python
print("irl-exp")
```

    irl-exp indented=1

```bash
python3 -m venv .venv && source .venv/bin/activate
pip install irl-exp
irl-score outputs/store/recover/FINGERPRINT texts.jsonl
IRL_EXP_REAL_DATA=FOLDER irl-exp +experiment=real_comments
irl-exp model.path=your-model
irl-exp model=pythia-70m seed=1
irl-exp dataset=civil_comments
irl-exp model.path=path/to/model paths.store=made
```
"""
    assert [" ".join(command.split()) for command in commands(readme)] == [
        "irl-exp -m 'seed=range(0,5)' solver=hinge # five runs",
        "irl-score outputs/store/recover/FINGERPRINT texts.jsonl",
        "irl-exp model.path=path/to/model paths.store=made",
    ]


@pytest.mark.skipif(text().count("\n") < 10, reason="README.md is not written yet")
def test_the_readme_has_commands() -> None:
    found = commands(text())
    assert any(command.startswith("irl-exp") for command in found), found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands speak of."""
    folder = tmp_path_factory.mktemp("desk")
    comments = synthetic.generate(1000, seed=0)
    with (folder / "comments.csv").open("w", newline="", encoding="utf-8") as file:
        labels = {0: "fine", 1: "toxic"}
        rows = [(comment.text, labels[comment.toxic]) for comment in comments]
        csv.writer(file).writerows([("comment", "label"), *rows])
    texts = [comment.text for comment in comments]
    records = [json.dumps({"text": text}) + "\n" for text in texts[:20]]
    (folder / "texts.jsonl").write_text("".join(records), encoding="utf-8")
    save_language_model(folder / "path" / "to" / "model", "llama", texts)
    shutil.copytree(folder / "path" / "to" / "model", folder / "path" / "to" / "aligned")
    teach(folder / "path" / "to" / "aligned", texts, 5)
    save_classifier(folder / "path" / "to" / "classifier", texts)
    clean, toxic = ([c.text for c in comments if c.toxic == label][:150] for label in (0, 1))
    both = [{"prompt": "", "aligned": a, "reference": b} for a, b in zip(clean, toxic, strict=True)]
    for name, names in (
        ("pairs", {}),
        ("preferences", {"aligned": "chosen", "reference": "rejected"}),
    ):
        rows = [{names.get(key, key): text for key, text in row.items()} for row in both]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    prompts = dict.fromkeys(" ".join(text.split()[:4]) for text in texts)
    (folder / "prompts.txt").write_text("\n".join(prompts), encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", commands(text()))
def test_a_command_of_the_readme(desk: Path, command: str) -> None:
    choose_fingerprint(desk / "outputs" / "store" / "recover")
    places = (Path(warm.command("irl-exp")).parent, Path(sys.executable).parent)
    tools = os.pathsep.join([*map(str, places), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", SHELL + command],
        cwd=desk,
        env={**os.environ, "PATH": tools, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def choose_fingerprint(recovered: Path) -> None:
    """Where the README says FINGERPRINT, stands one network reward that an earlier command kept."""
    link = recovered / "FINGERPRINT"
    networks = sorted(recovered.glob("[!.]*/model.safetensors"))
    if networks and not link.exists():
        link.symlink_to(networks[0].parent)
