"""A first look: run a small study, score two texts with what it recovered, draw one figure.

    python examples/first_look.py

Takes a minute or two on a laptop, offline; the run and the store go to outputs/. Any override of
the command line can be given too, as `solver=svm seed=3`.
"""

import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd

import irl_exp

# A study, as `irl-exp +debug=smoke until=evaluate` runs it. Small enough to be quick, and too
# small for a good reward: without +debug=smoke it is the default one.
run = irl_exp.run(["+debug=smoke", "until=evaluate", *sys.argv[1:]])
print(f"run: {run.folder}")

# The recovered reward, on two completions of one prompt: higher = better = less toxic.
reward = irl_exp.load_reward(run.recovered)
completions = [" is careful and kind , thanks .", " is what only a fool would write ."]
scores = reward.score(["This edit"] * 2, completions)
for completion, score in zip(completions, scores.tolist(), strict=True):
    print(f"{score:+.3f}  This edit{completion}")

# Every reward of the run on the same held-out texts: how near is the recovered one to the truth?
panel = pd.read_parquet(run.folder / "panel.parquet")
figure, axes = plt.subplots(figsize=(4.5, 4))
axes.scatter(panel["truth"], panel["recovered"], s=8)
axes.set_xlabel("R*, the reward that aligned the policy")
axes.set_ylabel("R̂, the reward recovered from what it writes")
axes.set_title(f"STARC {run.summary['recovery/starc']:.2f} (0 the same, 0.71 unrelated)")
figure.tight_layout()
figure.savefig("first_look.png", dpi=150)
print("figure: first_look.png")
