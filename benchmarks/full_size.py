"""The paper's study at the architecture of Pythia-70M, with random weights and without a hub.

    python -m benchmarks.full_size [FOLDER] [OVERRIDE...]

Two PPO steps and ten pairs, through every step of +experiment=paper_70m on embedded comments: that
it runs at this size, and for how long; its numbers mean nothing. FOLDER (outputs/full_size) gets
the model: 70 million weights, and a tokenizer of 2,048 entries. Since random weights mostly write
what no tokenizer knows, the reference is trained on the comments for two epochs; the base, which
pairs are set against, is not.
"""

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.architectures import PYTHIA, save
from irl_exp.data import synthetic
from irl_exp.models.language_model import train_tokenizer

SMALL = (
    *("dataset=synthetic", "dataset.size=400", "dataset.max_new_tokens=16"),
    # The grammar's own reward, whose zero parts nothing: labels are human.
    *("ground_truth=closed_form", "evaluation.labels=human"),
    *("model=checkpoint", "model.epochs=2", "model.learning_rate=1e-3"),
    *("rlhf.iterations=2", "rlhf.batch_size=8", "rlhf.minibatch_size=8", "rlhf.epochs=1"),
    *("demonstrations.prompts=10", "demonstrations.validation_prompts=4"),
    *("demonstrations.test_prompts=10", "solver.epochs=2", "evaluation.second_classifier=null"),
    *("evaluation.prompts=10", "evaluation.k=2", "evaluation.optimality_prompts=2"),
    *("evaluation.interpret_texts=8", "evaluation.identify_pairs=4", "evaluation.draws=20"),
)


def write(folder: Path) -> None:
    """GPT-NeoX of Pythia-70M's sizes, as its published configuration has them."""
    texts = [text for text, _ in synthetic.generate(2000, seed=0)]
    save(PYTHIA["pythia-70m"], train_tokenizer(texts, 2048), folder)


def main(folder: Path, overrides: list[str]) -> None:
    write(folder)
    study = ["+experiment=paper_70m", *SMALL, f"model.path={folder}", *overrides]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "irl_exp", *study], check=True)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/full_size"), sys.argv[2:])
