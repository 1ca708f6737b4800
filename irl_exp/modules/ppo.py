"""Proximal policy optimization of a language model against a text-level reward.

Schulman et al. 2017 (arXiv 1707.06347) with generalized advantage estimation (arXiv 1506.02438)
and, as in Ziegler et al. 2019 (arXiv 1909.08593), a penalty beta * log pi/pi_ref at every token.
Names of logged values are TRL's where TRL had them, so that curves can be laid over each other.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from irl_exp import processes
from irl_exp.config import PPOConfig, TrainerConfig
from irl_exp.data.batches import ResumableLoader
from irl_exp.metrics.behavior import distinct_n
from irl_exp.models import generation, language_model, policies, trainable
from irl_exp.models.generation import Drawn
from irl_exp.models.language_model import LanguageModel
from irl_exp.models.reward_model import Scorer
from irl_exp.modules import finite
from irl_exp.modules.sharding import clip_gradients
from irl_exp.modules.training import adamw, fit


def align(
    config: PPOConfig,
    reference: Path,
    reward: Scorer,
    prompts: Sequence[str],
    max_new_tokens: int,
    *,
    order: torch.Generator,
    generator: torch.Generator,
    trainer: TrainerConfig,
    folder: Path,
) -> str | None:
    """Train the policy in the folder `reference` and save it, with its value head, in `folder`.

    `order` decides which prompts come when, `generator`, on the device that samples, all that is
    drawn. Returns why training ended early, if it did.
    """
    # One long order of prompts, reshuffled whenever all have been seen.
    wanted = config.iterations * config.batch_size
    rounds = -(-wanted // len(prompts))
    indices = torch.cat([torch.randperm(len(prompts), generator=order) for _ in range(rounds)])
    batches = [rows.tolist() for rows in indices[:wanted].split(config.batch_size)]

    policy = generation.load_network(reference)
    language_model.require_plain_head(policy.network)
    trainable.restrict(
        policy.network, config.trainable, config.last_layers, config.lora_rank, order
    )
    if config.trainable != "all":
        policy.network.get_output_embeddings().requires_grad_(False)
    # With its updates switched off the policy is the reference: no second copy is needed.
    lora = config.trainable == "lora"
    before = policy if lora else generation.load_network(reference, str(generator.device))
    module = PPO(config, policy, before, reward, max_new_tokens, generator)
    fit(module, ResumableLoader(prompts, batches, list, whole=True), trainer, folder)
    trainable.merge(policy.network)
    policy.save(folder)
    save_model(module.value_head, str(folder / "value_head.safetensors"))
    policies.save_policy(folder, "network", stopped=module.stopped)
    return module.stopped


@dataclass(frozen=True)
class Rollout:
    """What one batch of prompts gave, over completion tokens: [n, T]; ids and masks int64."""

    prompt: tuple[Tensor, Tensor]
    completion: tuple[Tensor, Tensor]
    texts: list[str]
    scores: Tensor
    driving: Tensor
    log_probs: Tensor
    reference_log_probs: Tensor
    values: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor

    @property
    def mask(self) -> Tensor:
        return self.completion[1].bool()

    @property
    def kl(self) -> Tensor:
        """k1 estimate of KL(pi, pi_ref) of each completion, nats: [n]."""
        return (self.log_probs - self.reference_log_probs).sum(-1)


@contextmanager
def casting_once() -> Iterator[None]:
    """Where weights are cast to fewer bits for each product (mixed precision), each is cast once
    here: nothing changes them inside."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(True)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
        torch.clear_autocast_cache()


class PPO(pl.LightningModule):
    """One training step is one PPO iteration: sample, score, then `epochs` passes over minibatches.

    Batches are lists of prompts. The value head reads the policy's own last hidden state. `stopped`
    says why training ended early, if it did.

    Several processes write, score and learn from their own rows each; in between all know the whole
    rollout, so that whatever is made of it (advantages, moments, KL, stopping) is the same to all.
    """

    def __init__(
        self,
        config: PPOConfig,
        policy: LanguageModel,
        reference: LanguageModel,
        reward: Scorer,
        max_new_tokens: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.policy = policy
        self.network = policy.network.eval()  # eval: no dropout, the ratio must start at one
        self.reference = reference
        self.reward = reward
        self.max_new_tokens = max_new_tokens
        self.generator = generator
        self.value_head = nn.Linear(_width(self.network), 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.kl_coef = config.kl_coef
        self.moments = RunningMoments()
        self.stopped: str | None = None

    # --- one iteration ------------------------------------------------------------------------

    def training_step(self, prompts: list[str], index: int) -> None:
        rollout = self.rollout(prompts)
        self.check(rollout, index)
        if self.stopped:
            return
        records = [
            self.update(rollout, rows)
            for _ in range(self.config.epochs)
            for rows in self.minibatches(len(prompts))
        ]
        self.lr_schedulers().step()  # type: ignore[union-attr]
        averages = {name: sum(r[name] for r in records) / len(records) for name in records[0]}
        self.log_iteration(rollout, averages, index)
        if self.config.kl_target is not None:
            self.kl_coef = adapted(
                self.kl_coef,
                float(rollout.kl.mean()),
                self.config.kl_target,
                len(prompts) / self.config.kl_horizon,
            )

    def minibatches(self, n: int) -> Sequence[Tensor]:
        order = torch.randperm(n, generator=self.generator, device=self.generator.device)
        return order.split(self.config.minibatch_size)

    @torch.no_grad()
    @casting_once()
    def rollout(self, prompts: list[str]) -> Rollout:
        encoded = language_model.encode_prompts(self.policy, prompts, self.max_new_tokens)
        prompt = (encoded[0].to(self.device), encoded[1].to(self.device))
        own = (processes.mine(prompt[0]), processes.mine(prompt[1]))
        drawn = generation.sample_tokens(
            self.policy, own, self.max_new_tokens, self.generator, shared=True, with_states=True
        )
        n, written = len(prompts), (drawn.ids, drawn.mask)
        completion = (processes.gathered(written[0], n), processes.gathered(written[1], n))
        texts = generation.written(self.policy, prompts, completion[0])
        scores = self.reward.score(processes.mine(prompts), processes.mine(texts)).to(self.device)
        log_probs, values = self.as_drawn(drawn, own)
        with trainable.without_updates(self.reference.network):
            reference = language_model.completion_log_probs(self.reference.network, own, written)
        scores, reference = processes.gathered(scores, n), processes.gathered(reference, n)
        log_probs, values = processes.gathered(log_probs, n), processes.gathered(values, n)
        mask = completion[1].bool()
        driving = self.driving(scores)
        rewards = token_rewards(driving, log_probs, reference, mask, self.kl_coef)
        advantages, returns = generalized_advantages(
            rewards, values, mask, self.config.discount, self.config.gae_lambda
        )
        return Rollout(
            prompt=prompt,
            completion=completion,
            texts=texts,
            scores=scores,
            driving=driving,
            log_probs=log_probs,
            reference_log_probs=reference,
            values=values,
            rewards=rewards,
            advantages=whiten(advantages, mask),
            returns=returns,
        )

    def driving(self, scores: Tensor) -> Tensor:
        """The scores as they enter the rewards: scaled by what was seen so far, and held within
        bounds, where that is asked for."""
        config = self.config
        if config.scale_scores:
            scores = scores / self.moments.see(scores)
        if config.clip_scores is not None:
            scores = scores.clamp(-config.clip_scores, config.clip_scores)
        return scores

    def as_drawn(self, drawn: Drawn, prompt: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """`evaluate` of what was drawn just now. Sampling has passed all of it: in 32 bits to a
        millionth. In fewer its rounding would look like a change of the policy."""
        if drawn.states is None or torch.is_autocast_enabled(self.device.type):
            return self.evaluate(prompt, (drawn.ids, drawn.mask))
        return drawn.log_probs, self.value_head(drawn.states).squeeze(-1) * drawn.mask

    def evaluate(
        self, prompt: tuple[Tensor, Tensor], completion: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and values of completion tokens, [n, T] each, 0 at padding."""
        states = language_model.completion_states(self.network, prompt, completion)
        ids, real = completion[0], completion[1].bool()
        head = self.network.get_output_embeddings()
        log_probs = language_model.token_log_probs(head, states, ids[real])
        values = self.value_head(states).squeeze(-1).float()
        return _spread(log_probs, real), _spread(values, real)

    def update(self, rollout: Rollout, rows: Tensor) -> dict[str, float]:
        """One optimizer step on some rows of the rollout, micro-batch by micro-batch."""
        optimizer = self.optimizers()
        optimizer.zero_grad()  # type: ignore[union-attr]
        total = int(rollout.mask[rows].sum())
        facts: dict[str, float] = {}
        for part in rows.split(self.config.micro_batch_size or len(rows)):
            own = processes.mine(part)
            share = int(rollout.mask[own].sum()) / total
            loss, found = self.losses(rollout, own)
            if processes.size() == 1 and not loss.isfinite():
                self.refuse(f"the loss is {loss:g}", self.trainer.global_step, rollout)
            # Of the gradients of several processes DDP takes the mean: here they are to be added.
            self.manual_backward(loss * (share * processes.size()))
            facts = {name: facts.get(name, 0.0) + share * value for name, value in found.items()}
        trained = [*self.network.parameters(), *self.value_head.parameters()]
        norm = clip_gradients(trained, self.config.max_grad_norm)
        if not norm.isfinite():
            self.refuse(f"the gradient's norm is {norm:g}", self.trainer.global_step, rollout)
        optimizer.step()  # type: ignore[union-attr]
        facts = {name: processes.total(value, self.device) for name, value in facts.items()}
        return {"grad_norm": norm.item(), **facts}

    def losses(self, rollout: Rollout, rows: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The mean loss over the tokens of some rows, and what is logged of them."""
        longest = int(rollout.completion[1][rows].sum(-1).max())
        mask = rollout.mask[rows, :longest]
        log_probs, values = self.evaluate(
            (rollout.prompt[0][rows], rollout.prompt[1][rows]),
            (rollout.completion[0][rows, :longest], rollout.completion[1][rows, :longest]),
        )
        policy_loss, policy_facts = clipped_policy_loss(
            log_probs,
            rollout.log_probs[rows, :longest],
            rollout.advantages[rows, :longest],
            mask,
            self.config.clip_range,
        )
        value_loss, value_facts = clipped_value_loss(
            values,
            rollout.values[rows, :longest],
            rollout.returns[rows, :longest],
            mask,
            self.config.value_clip_range,
        )
        losses = {"loss/policy_avg": policy_loss.item(), "loss/value_avg": value_loss.item()}
        loss = policy_loss + self.config.value_coef * value_loss
        return loss, {**losses, **policy_facts, **value_facts}

    def configure_optimizers(self) -> Any:
        config = self.config
        plan = adamw(
            self.network,
            config.learning_rate,
            0.0,
            config.warmup,
            config.iterations,
            # A linear head that starts from zero has further to go than weights that can write.
            rates={self.value_head: config.value_learning_rate},
        )
        return [plan["optimizer"]], [plan["lr_scheduler"]]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["generator"] = self.generator.get_state()
        checkpoint["kl_coef"] = self.kl_coef
        checkpoint["moments"] = self.moments.state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.generator.set_state(checkpoint["generator"])
        self.kl_coef = checkpoint["kl_coef"]
        self.moments = RunningMoments(*checkpoint["moments"])

    # --- stop rules and what is logged --------------------------------------------------------

    def check(self, rollout: Rollout, iteration: int) -> None:
        """Stop before an update that a collapsed or diverged policy would make worse."""
        kl = float(rollout.kl.mean())
        distinct = distinct_n(rollout.texts, 2)
        bigrams = any(len(text.split()) > 1 for text in rollout.texts)
        numbers = (rollout.scores, rollout.log_probs, rollout.values)
        if not all(torch.isfinite(x).all() for x in numbers):
            what = "a score, log-probability or value of the rollout is not finite"
            self.refuse(what, self.trainer.global_step, rollout)
        if kl > self.config.stop_kl:
            self.stopped = f"KL {kl:.1f} nats passed rlhf.stop_kl={self.config.stop_kl:g}"
        elif distinct < self.config.stop_distinct_2 and bigrams:
            self.stopped = (
                f"distinct-2 {distinct:.3f} fell below "
                f"rlhf.stop_distinct_2={self.config.stop_distinct_2:g}"
            )
        if self.stopped:
            self.stopped = f"iteration {iteration}: {self.stopped}"
            self.trainer.should_stop = True

    def refuse(self, what: str, step: int, rollout: Rollout) -> NoReturn:
        batch = {field.name: getattr(rollout, field.name) for field in fields(rollout)}
        folder = self.logger.path.parent  # type: ignore[union-attr]
        finite.refuse(type(self).__name__, step, what, batch, folder)

    def log_iteration(self, rollout: Rollout, averages: dict[str, float], index: int) -> None:
        mask = rollout.mask
        log_ratio = (rollout.log_probs - rollout.reference_log_probs)[mask]
        penalty = self.kl_coef * rollout.kl
        ended = (rollout.completion[0] == self.policy.tokenizer.eos_token_id) & mask
        self.logger.log_metrics(  # type: ignore[union-attr]
            {
                "objective/kl": rollout.kl.mean().item(),
                "objective/kl_k3": ((-log_ratio).exp() - 1 + log_ratio).sum().item() / len(mask),
                "objective/entropy": -rollout.log_probs.sum(-1).mean().item(),
                "objective/kl_coef": self.kl_coef,
                "objective/non_score_reward": -penalty.mean().item(),
                "objective/rlhf_reward": (rollout.driving - penalty).mean().item(),
                "objective/scores": rollout.scores.mean().item(),
                "val/num_eos_tokens": ended.sum().item(),
                "val/explained_variance": explained_variance(rollout),
                "completion/length": mask.sum(-1).float().mean().item(),
                "completion/distinct_2": distinct_n(rollout.texts, 2),
                "lr": self.lr_schedulers().get_last_lr()[0],  # type: ignore[dict-item, union-attr]
                "episode": (index + 1) * len(mask),
                **averages,
            },
            step=index,
        )


# --- the formulas -----------------------------------------------------------------------------


def token_rewards(
    scores: Tensor, log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor, kl_coef: float
) -> Tensor:
    """-beta * (log pi - log pi_ref) at every token, plus the score at the last real one: [n, T].

    scores [n]; the others [n, T], mask bool. Ziegler et al. 2019, equation 2, spread over tokens.
    """
    rewards = -kl_coef * (log_probs - reference_log_probs) * mask
    last = mask.sum(-1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores.unsqueeze(1).to(rewards.dtype))


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, discount: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns [n, T]; nothing follows the last real token.

    A_t = sum_l (discount * lambda)^l delta_{t+l}, delta_t = r_t + discount * V_{t+1} - V_t
    (Schulman et al. 2016, arXiv 1506.02438, equation 16).
    """
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(running)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + discount * next_value - values[:, t]
        running = (delta + discount * gae_lambda * running) * mask[:, t]
        advantages[:, t] = running
        next_value = values[:, t] * mask[:, t]
    return advantages, (advantages + values) * mask


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over real tokens; 0 at padding. [n, T]."""
    real = x[mask]
    return (x - real.mean()) / (real.std(correction=0) + 1e-8) * mask


def clipped_policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> tuple[Tensor, dict[str, float]]:
    """Mean over real tokens of -min(r A, clip(r, 1 - c, 1 + c) A), r = pi/pi_old.

    Schulman et al. 2017, equation 7.
    """
    log_ratio = (log_probs - old_log_probs)[mask]
    ratio, advantage = log_ratio.exp(), advantages[mask]
    plain = -advantage * ratio
    clipped = -advantage * ratio.clamp(1 - clip_range, 1 + clip_range)
    facts = {
        "policy/approxkl_avg": 0.5 * log_ratio.detach().square().mean().item(),
        "policy/clipfrac_avg": (clipped > plain).float().mean().item(),
        "val/ratio": ratio.detach().mean().item(),
    }
    return torch.maximum(plain, clipped).mean(), facts


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip_range: float
) -> tuple[Tensor, dict[str, float]]:
    """Half the squared error of the value or of the value held near the old one: the worse."""
    value, old, target = values[mask], old_values[mask], returns[mask]
    held = old + (value - old).clamp(-clip_range, clip_range)
    plain, clipped = (value - target).square(), (held - target).square()
    facts = {"val/clipfrac_avg": (clipped > plain).float().mean().item()}
    return 0.5 * torch.maximum(plain, clipped).mean(), facts


def explained_variance(rollout: Rollout) -> float:
    """1 - Var(return - value) / Var(return) over real tokens."""
    returns, values = rollout.returns[rollout.mask], rollout.values[rollout.mask]
    variance = returns.var(correction=0)
    return float(1 - (returns - values).var(correction=0) / variance) if variance > 0 else 0.0


def adapted(kl_coef: float, kl: float, target: float, rate: float) -> float:
    """The coefficient after a rollout with this KL: raised where that is above the target.

    beta (1 + rate clip(kl / target - 1, -0.2, 0.2)), rate the rollout's share of the horizon
    (Ziegler et al. 2019, section 2.2).
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + rate * error)


class RunningMoments:
    """Mean and standard deviation of all numbers seen so far (Chan, Golub and LeVeque 1979)."""

    def __init__(self, count: int = 0, mean: float = 0.0, squares: float = 0.0) -> None:
        self.count, self.mean, self.squares = count, mean, squares

    @property
    def state(self) -> tuple[int, float, float]:
        return self.count, self.mean, self.squares

    def see(self, x: Tensor) -> float:
        """The standard deviation, x [n] included; 1 where all numbers are one."""
        x = x.cpu().double()
        n, mean = x.numel(), float(x.mean())
        squares = float((x - mean).square().sum())
        total = self.count + n
        self.squares += squares + (mean - self.mean) ** 2 * self.count * n / total
        self.mean += (mean - self.mean) * n / total
        self.count = total
        return (self.squares / total) ** 0.5 or 1.0


def _spread(flat: Tensor, mask: Tensor) -> Tensor:
    """Values of the real tokens, put back to their places; 0 at padding."""
    result = flat.new_zeros(mask.shape)
    result[mask] = flat
    return result


def _width(network: nn.Module) -> int:
    return int(network.get_output_embeddings().weight.shape[1])  # type: ignore[operator]
