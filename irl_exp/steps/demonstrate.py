"""demonstrate: for each prompt, k completions of the aligned and k of the reference policy."""

from pathlib import Path

from irl_exp.config import InputError
from irl_exp.data.comments import Comments
from irl_exp.data.pairs import Demonstrations
from irl_exp.models import generation
from irl_exp.steps.bench import Bench
from irl_exp.store import Artifact

VERSION = 2


def demonstrate(
    bench: Bench, comments: Artifact, aligned: Artifact, reference: Artifact
) -> Artifact:
    """Artifact: `demonstrations.parquet`. Neither policy sees what the other drew."""
    config, seed = bench.config.demonstrations, bench.config.seeds.policy
    trainer = bench.config.trainer
    max_new_tokens = bench.config.dataset.max_new_tokens

    def compute(folder: Path) -> None:
        table = Comments.load(comments.path)
        wanted = {
            "train": config.prompts,
            "validation": config.validation_prompts,
            "test": config.test_prompts,
        }
        prompts, splits = [], []
        for split, n in wanted.items():
            available = table.split(split).prompts
            if len(available) < n:
                raise InputError(
                    f"demonstrations ask for {n} prompts of the {split} split, "
                    f"which has {len(available)}"
                )
            prompts += available[:n]
            splits += [split] * n
        texts = {}
        for name, artifact in (("aligned", aligned), ("reference", reference)):
            policy = generation.load_policy(
                artifact.path,
                max_new_tokens,
                trainer.sample_batch_size,
                bench.device,
                greedy=config.greedy,
            )
            generator = bench.generator(seed, f"demonstrate {name}")
            texts[name] = policy.sample(prompts, config.k, generator).completions
        Demonstrations(prompts, texts["aligned"], texts["reference"], splits).save(folder)

    return bench.do(
        "demonstrate",
        VERSION,
        compute,
        config=config,
        inputs={"comments": comments, "aligned": aligned, "reference": reference},
        seed=seed,
    )
