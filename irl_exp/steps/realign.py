"""realign: RLHF of the reference with R̂ in the place of R*, on equal terms with the aligned policy.

The policy that goes further from the reference gets more of a reward, and may overdo one that is
not quite the true one (Gao et al. 2023, arXiv 2210.10760). So realigned policies are compared with
the aligned one at the KL that this spends, and among each other at multiples of it.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import brentq

from irl_exp.config import BestOfNConfig, GroupConfig, PPOConfig, TiltedConfig
from irl_exp.data.comments import Comments
from irl_exp.metrics.behavior import tilted_kl, tilted_weights
from irl_exp.models import generation, policies
from irl_exp.models.generation import NetworkPolicy
from irl_exp.models.policies import best_of_n_kl
from irl_exp.models.saved_rewards import load_normalized
from irl_exp.steps.align import align
from irl_exp.steps.bench import Bench, read_summary, write_summary
from irl_exp.store import Artifact

VERSION = 2
# Validation prompts by which KL is measured, and completions of each: its standard error is then
# some hundredths of its spread between completions.
PROMPTS, COMPLETIONS = 256, 8
# What cannot be told from none is no target.
LEAST_KL = 0.01
# Of the target: a policy that is further off was not realigned on equal terms.
TOLERANCE = 0.1
# Where the beta of a tilted policy is looked for.
BETAS = (1e-3, 1e3)
MOST_CANDIDATES = 4096


def realign(
    bench: Bench,
    comments: Artifact,
    reference: Artifact,
    recovered: Artifact,
    kl: float,
    label: str = "realign",
) -> Artifact:
    """Artifact: a policy folder, as of `align`; its KL from the reference is to be `kl` nats.

    DPO and RAFT keep the beta of the aligned policy instead. With `evaluation.released_shaping` R̂
    drives it as the paper's released code shapes it.
    """
    rlhf = bench.config.rlhf
    if isinstance(rlhf, PPOConfig | GroupConfig):
        rlhf = replace(rlhf, kl_target=kl)
    elif isinstance(rlhf, BestOfNConfig):
        rlhf = replace(rlhf, candidates=_candidates(kl))
    elif isinstance(rlhf, TiltedConfig):
        rlhf = replace(rlhf, kl_coef=_beta(bench, rlhf, comments, reference, recovered, kl))
    shaping = bench.config.evaluation.released_shaping
    return align(bench, comments, reference, recovered, label, rlhf, shaping)


def check(bench: Bench, name: str, kl: float, observation: Artifact) -> None:
    """Report the KL that was aimed at beside the one that is spent; warn if they differ by more
    than chance, which some hundreds of completions leave a good part of the tolerance."""
    numbers = read_summary(observation.path)
    found, low, high = (
        float(numbers.get(f"kl{end}", numbers["kl"])) for end in ("", "_low", "_high")
    )
    bench.tracker.summarize({f"policy/{name}/kl_target": kl})
    if low > (1 + TOLERANCE) * kl or high < (1 - TOLERANCE) * kl:
        bench.tracker.warn(
            f"{name}: its KL is {found:.2f} nats where {kl:.2f} were aimed at"
            + (", so it and the aligned policy do not stand on equal terms" * (name != "aligned"))
        )


def spent(bench: Bench, comments: Artifact, aligned: Artifact, reference: Artifact) -> float:
    """KL of the aligned policy from the reference on validation prompts, nats per completion."""
    trainer, max_new_tokens = bench.config.trainer, bench.config.dataset.max_new_tokens
    seed = bench.config.seeds.alignment

    def compute(folder: Path) -> None:
        size = trainer.sample_batch_size
        policy = policies.load_policy(aligned.path, max_new_tokens, size, bench.device)
        before = generation.load_network(reference.path, bench.device)
        prompts = Comments.load(comments.path).split("validation").prompts[:PROMPTS]
        samples = policy.sample(prompts, COMPLETIONS, bench.generator(seed, "spent"), before)
        assert samples.kl is not None
        write_summary(folder, {"kl": float(samples.kl.double().mean())})

    artifact = bench.do(
        "spent",
        VERSION,
        compute,
        config={"max_new_tokens": max_new_tokens},
        inputs={"comments": comments, "aligned": aligned, "reference": reference},
        seed=seed,
    )
    return max(LEAST_KL, float(read_summary(artifact.path)["kl"]))


def _candidates(kl: float) -> int:
    """The n of a best-of-n policy whose KL is nearest to this one."""
    return min(range(1, MOST_CANDIDATES + 1), key=lambda n: abs(best_of_n_kl(n) - kl))


def _beta(
    bench: Bench,
    rlhf: TiltedConfig,
    comments: Artifact,
    reference: Artifact,
    recovered: Artifact,
    kl: float,
) -> float:
    """The beta at which the tilted policy of R̂ spends this KL, on validation prompts.

    Its KL falls as beta rises, from log N where one candidate has all the weight, to nothing.
    """
    trainer, max_new_tokens = bench.config.trainer, bench.config.dataset.max_new_tokens
    seed = bench.config.seeds.alignment

    def compute(folder: Path) -> None:
        size = trainer.sample_batch_size
        base = NetworkPolicy(
            generation.load_network(reference.path, bench.device), max_new_tokens, size
        )
        prompts = Comments.load(comments.path).split("validation").prompts[:PROMPTS]
        pool = base.sample(prompts, rlhf.candidates, bench.generator(seed, "beta"))
        reward = load_normalized(recovered.path, trainer.score_batch_size, bench.device)
        scores = reward.score(*pool.flat()).view(len(prompts), -1).numpy().astype(np.float64)

        def excess(log_beta: float) -> float:
            weights = tilted_weights(scores, float(np.exp(log_beta)))
            return float(tilted_kl(weights).mean()) - kl

        low, high = np.log(BETAS)
        # A KL that the candidates cannot show: as near as they come.
        log_beta = low if excess(low) < 0 else brentq(excess, low, high)
        write_summary(folder, {"kl_coef": float(np.exp(log_beta))})

    artifact = bench.do(
        "matched_beta",
        VERSION,
        compute,
        config={"candidates": rlhf.candidates, "kl": kl, "max_new_tokens": max_new_tokens},
        inputs={"comments": comments, "reference": reference, "recovered": recovered},
        seed=seed,
    )
    return float(read_summary(artifact.path)["kl_coef"])
