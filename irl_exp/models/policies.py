"""Policies that choose among the reference's completions, and saved policies of any kind."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from irl_exp.metrics.behavior import tilted_kl, tilted_weights
from irl_exp.models.generation import NetworkPolicy, Policy, Samples, load_network
from irl_exp.models.language_model import LanguageModel
from irl_exp.models.reward_model import Scorer
from irl_exp.models.saved_rewards import load_normalized


@dataclass(frozen=True)
class TiltedPolicy:
    """The policy that KL-regularized RLHF aims at: pi_ref(y|x) exp(R(x, y) / beta) / Z(x).

    Drawn by self-normalized importance resampling: `candidates` completions of the reference per
    prompt, weighted by exp(R/beta), of which k are drawn with replacement. KL(pi, pi_ref) is
    estimated by sum_j w_j log(N w_j), which cannot pass log N. R is the normalized reward.
    """

    base: NetworkPolicy
    reward: Scorer
    beta: float
    candidates: int

    def sample(
        self,
        prompts: Sequence[str],
        k: int,
        generator: torch.Generator,
        reference: LanguageModel | None = None,
    ) -> Samples:
        pool = self.base.sample(prompts, self.candidates, generator)
        rewards = self.reward.score(*pool.flat()).view(len(prompts), self.candidates)
        weights = torch.from_numpy(tilted_weights(rewards.numpy(), self.beta))
        drawn = torch.multinomial(weights, k, replacement=True, generator=_cpu(generator))
        kl = torch.from_numpy(tilted_kl(weights.numpy())).float()
        return Samples(
            prompts=list(prompts),
            completions=_picked(pool, drawn),
            lengths=pool.lengths.gather(1, drawn),
            kl=kl.unsqueeze(1).expand(-1, k),
            overlap=_overlap(weights).float().unsqueeze(1).expand(-1, k),
            effective_size=1.0 / weights.square().sum(-1),
        )


@dataclass(frozen=True)
class BestOfNPolicy:
    """The best of n completions of the reference by R, each of the k completions from n of its own.

    KL(pi, pi_ref) is log n - (n - 1)/n where no two completions are alike, and less where some are
    (Beirami et al., arXiv 2401.01879): what stands in `kl` is that bound.
    """

    base: NetworkPolicy
    reward: Scorer
    candidates: int

    def sample(
        self,
        prompts: Sequence[str],
        k: int,
        generator: torch.Generator,
        reference: LanguageModel | None = None,
    ) -> Samples:
        n = self.candidates
        pool = self.base.sample(prompts, k * n, generator)
        rewards = self.reward.score(*pool.flat()).view(len(prompts), k, n)
        best = rewards.argmax(-1) + n * torch.arange(k)
        return Samples(
            prompts=list(prompts),
            completions=_picked(pool, best),
            lengths=pool.lengths.gather(1, best),
            kl=torch.full((len(prompts), k), best_of_n_kl(n)),
            overlap=torch.full((len(prompts), k), best_of_n_overlap(n)),
        )


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1)/n, in nats."""
    return math.log(n) - (n - 1) / n


def best_of_n_overlap(n: int) -> float:
    """The sum over completions of min(pi, pi_ref), where no two are alike.

    Of completions by their rank u, uniform under the reference, the best of n have density
    n u^(n-1), which passes 1 at u = n^(-1/(n-1)).
    """
    if n == 1:
        return 1.0
    crossing = n ** (-1 / (n - 1))
    return float(crossing**n + 1 - crossing)


def _overlap(weights: torch.Tensor) -> torch.Tensor:
    """The same of a tilted policy, by the weights [n, N] of candidates of its prompts: [n]."""
    return (weights * weights.shape[1]).clamp(max=1).mean(-1)


def _picked(pool: Samples, places: torch.Tensor) -> list[list[str]]:
    """The completions of each prompt at `places` [n, k] in its pool."""
    rows = zip(pool.completions, places.tolist(), strict=True)
    return [[texts[place] for place in picks] for texts, picks in rows]


def _cpu(generator: torch.Generator) -> torch.Generator:
    """A CPU generator that continues from `generator`: rewards and weights live on the CPU."""
    if generator.device.type == "cpu":
        return generator
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    return torch.Generator().manual_seed(seed)


# --- saved policies ---------------------------------------------------------------------------

POLICY_FILE = "policy.json"


def save_policy(folder: Path, kind: str, **facts: float | str | None) -> None:
    """Say what the folder holds: `network` (a model), or `tilted` or `best_of_n` (reference/ and
    reward/)."""
    (folder / POLICY_FILE).write_text(json.dumps({"kind": kind, **facts}, indent=2) + "\n")


def load_policy(
    folder: Path,
    max_new_tokens: int,
    batch_size: int,
    device: str = "cpu",
    greedy: bool = False,
) -> Policy:
    """The policy that a step saved in `folder`; `greedy` is for networks alone."""
    facts = json.loads((folder / POLICY_FILE).read_text())
    if facts["kind"] == "network":
        return NetworkPolicy(load_network(folder, device), max_new_tokens, batch_size, greedy)
    base = NetworkPolicy(load_network(folder / "reference", device), max_new_tokens, batch_size)
    reward = load_normalized(folder / "reward", batch_size, device)
    if facts["kind"] == "best_of_n":
        return BestOfNPolicy(base, reward, facts["candidates"])
    return TiltedPolicy(base, reward, facts["beta"], facts["candidates"])


def stop_reason(folder: Path) -> str | None:
    """Why the training of the policy in `folder` ended early, if it did."""
    return json.loads((folder / POLICY_FILE).read_text()).get("stopped")
