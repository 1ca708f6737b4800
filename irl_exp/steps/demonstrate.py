"""demonstrate: for each prompt, k completions of the aligned and k of the reference policy."""

from pathlib import Path

from irl_exp.config import STEPS, DemonstrationsConfig, InputError
from irl_exp.data.comments import Comments
from irl_exp.data.pairs import Demonstrations
from irl_exp.models import generation
from irl_exp.steps.bench import Bench, read_summary
from irl_exp.store import Artifact

VERSION = 2


def require_prompts(bench: Bench, comments: Artifact) -> None:
    """Refuse a study that will ask for more prompts than there are, before it starts to compute."""
    if bench.config.until in STEPS[: STEPS.index("demonstrate")]:
        return
    counts = read_summary(comments.path)
    short = [
        f"{key}={n}: the {split} split has {available}"
        for split, (key, n) in _wanted(bench.config.demonstrations).items()
        if n > (available := int(counts[f"comments/{split}_prompts"]))
    ]
    if short:
        words = bench.config.dataset.prompt_words
        raise InputError(
            f"{'; '.join(short)} prompts; expected no more than that (comments with the same first "
            f"dataset.prompt_words={words} words share a prompt)"
        )


def _wanted(config: DemonstrationsConfig) -> dict[str, tuple[str, int]]:
    """Split -> the key that says how many of its prompts are asked for, and that number."""
    return {
        "train": ("demonstrations.prompts", config.prompts),
        "validation": ("demonstrations.validation_prompts", config.validation_prompts),
        "test": ("demonstrations.test_prompts", config.test_prompts),
    }


def demonstrate(
    bench: Bench, comments: Artifact, aligned: Artifact, reference: Artifact
) -> Artifact:
    """Artifact: `demonstrations.parquet`. Neither policy sees what the other drew."""
    config, seed = bench.config.demonstrations, bench.config.seeds.demonstrations
    trainer = bench.config.trainer
    max_new_tokens = bench.config.dataset.max_new_tokens

    def compute(folder: Path) -> None:
        table = Comments.load(comments.path)
        prompts, splits = [], []
        for split, (_, n) in _wanted(config).items():
            prompts += table.split(split).prompts[:n]
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
