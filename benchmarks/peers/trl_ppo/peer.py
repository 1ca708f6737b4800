"""TRL's PPOTrainer on our ground: prompts as token rows, and a text-level reward in its shape.

Runs where requirements.txt is installed. The trainer itself is TRL's, unchanged.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from datasets import Dataset
from torch import Tensor, nn
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase
from trl.experimental.ppo import PPOConfig

Score = Callable[[Sequence[str], Sequence[str]], Tensor]


class TextReward(nn.Module):
    """What TRL's `get_reward` asks of a reward model, over a reward that reads texts.

    TRL runs the body over prompt and completion and its `score` over each hidden state, and takes
    what stands at the last token. Here the "hidden state" is the row of tokens itself, and every
    place of a row gets the score of its text.
    """

    base_model_prefix = "body"

    def __init__(
        self, score: Score, tokenizer: PreTrainedTokenizerBase, prompt_length: int
    ) -> None:
        super().__init__()
        self.text_score, self.tokenizer, self.prompt_length = score, tokenizer, prompt_length

    def body(self, input_ids: Tensor, attention_mask: Tensor, **unused: Any) -> Any:
        ids = input_ids.masked_fill(~attention_mask.bool(), self.tokenizer.pad_token_id)
        return SimpleNamespace(hidden_states=[ids])

    def score(self, ids: Tensor) -> Tensor:
        parts = ids[:, : self.prompt_length], ids[:, self.prompt_length :]
        prompts, completions = (
            self.tokenizer.batch_decode(
                part, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            for part in parts
        )
        scores = self.text_score(prompts, completions)
        return scores.view(-1, 1, 1).expand(-1, ids.shape[1], 1).clone()


def arguments(folder: Path, batch_size: int, **changes: Any) -> PPOConfig:
    """In float32 on one CPU, T = 1, and nothing written but what we write.

    The whole rollout is one "device batch", cut into minibatches by TRL. With gradient accumulation
    Accelerate counts micro-batches over the whole rollout and steps once a pass, however many
    minibatches were asked for.
    """
    return PPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=1,
        local_rollout_forward_batch_size=batch_size,
        temperature=1.0,
        stop_token="eos",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        num_sample_generations=0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **changes,
    )


def trainer(
    kind: type,
    args: PPOConfig,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    score: Score,
    models: dict[str, PreTrainedModel],
    optimizers: tuple = (None, None),
) -> Any:
    """A PPOTrainer (of the class `kind`) for `models`: model, ref_model and value_model.

    All prompts are padded to the longest, so that the reward knows where completions begin.
    """
    tokenizer.padding_side = "left"
    length = max(len(row) for row in prompts)
    policy = models["model"]
    policy.generation_config.pad_token_id = tokenizer.pad_token_id
    return kind(
        args=args,
        processing_class=tokenizer,
        reward_model=TextReward(score, tokenizer, length),
        train_dataset=Dataset.from_dict({"input_ids": [list(row) for row in prompts]}),
        data_collator=DataCollatorWithPadding(tokenizer, padding="max_length", max_length=length),
        optimizers=optimizers,
        **models,
    )
