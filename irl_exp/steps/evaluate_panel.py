"""evaluate_panel: the texts on which the rewards of all runs are laid side by side."""

import hashlib
from pathlib import Path

import pandas as pd

from irl_exp.config import SampledDemonstrations
from irl_exp.data.comments import Comments
from irl_exp.models import policies
from irl_exp.steps.bench import Bench
from irl_exp.store import Artifact

VERSION = 5
PANEL_FILE = "panel.parquet"
# Of each prompt. Fixed, as their seed is: what a study varies must not move the panel.
COMPLETIONS = 4
# Rows of comments, and of completions.
COMMENT, REFERENCE = "comment", "reference"


def completions(bench: Bench, comments: Artifact, reference: Artifact) -> Artifact:
    """What the reference writes after test prompts, from a seed that nothing drives: an artifact of
    its own, the same for all studies of one reference and one set of comments."""
    trainer, max_new_tokens = bench.config.trainer, bench.config.dataset.max_new_tokens
    demonstrations = bench.config.demonstrations
    assert isinstance(demonstrations, SampledDemonstrations)
    count = demonstrations.test_prompts

    def compute(folder: Path) -> None:
        policy = policies.load_policy(
            reference.path, max_new_tokens, trainer.sample_batch_size, bench.device
        )
        prompts = Comments.load(comments.path).split("test").prompts[:count]
        written = policy.sample(prompts, COMPLETIONS, bench.generator(0, "panel")).flat()
        table = pd.DataFrame({"kind": REFERENCE, "prompt": written[0], "completion": written[1]})
        table.to_parquet(folder / PANEL_FILE, index=False)

    return bench.do(
        "evaluate_panel",
        VERSION,
        compute,
        config={"prompts": count, "k": COMPLETIONS, "max_new_tokens": max_new_tokens},
        inputs={"comments": comments, "reference": reference},
        seed=0,
    )


def texts(comments: Artifact, written: Artifact) -> pd.DataFrame:
    """Held-out comments with their labels, then `completions`: kind, prompt, completion, toxic."""
    test = Comments.load(comments.path).split("test")
    human = pd.DataFrame(
        {
            "kind": COMMENT,
            "prompt": test.table["prompt"].tolist(),
            "completion": test.completions,
            "toxic": pd.array(test.labels, dtype="Int8"),
        }
    )
    completed = pd.read_parquet(written.path / PANEL_FILE)
    completed["toxic"] = pd.array([None] * len(completed), dtype="Int8")
    return pd.concat([human, completed], ignore_index=True)


def digest(path: Path) -> str:
    """Of the texts in a panel's file: rewards of two runs can be compared when this is equal."""
    table = pd.read_parquet(path, columns=["kind", "prompt", "completion"])
    rows = "\n".join(map("\t".join, table.itertuples(index=False)))
    return hashlib.sha256(rows.encode()).hexdigest()[:16]
