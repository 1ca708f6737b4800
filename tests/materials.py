"""Checkpoints as a user brings them: saved by transformers alone, with tokenizers unlike ours."""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from irl_exp.config import PPOConfig
from irl_exp.models.reward_model import Facts, Normalizer, Reward


def save_language_model(folder: Path, family: str, texts: list[str]) -> None:
    """A causal language model, gpt2 or llama, with random weights."""
    tokenizer = train_bpe(texts, ["</s>", "<s>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>")
    torch.manual_seed(0)
    network = (
        GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(fast),
                n_positions=96,
                n_embd=32,
                n_layer=1,
                n_head=2,
                bos_token_id=1,
                eos_token_id=0,
            )
        )
        if family == "gpt2"
        else LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(fast),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=1,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=96,
                bos_token_id=1,
                eos_token_id=0,
            )
        )
    )
    network.save_pretrained(folder)
    fast.save_pretrained(folder)


def teach(
    folder: Path, texts: list[str], steps: int, seed: int = 0, into: Path | None = None
) -> None:
    """Train the language model in a folder on texts, by transformers and torch alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(texts), (32,), generator=order).tolist()
        ended = [texts[row] + tokenizer.eos_token for row in rows]
        batch = tokenizer(ended, return_tensors="pt", padding=True)
        ends = batch["attention_mask"].cumsum(-1) > batch["attention_mask"].sum(-1, keepdim=True)
        labels = batch["input_ids"].masked_fill(ends | (batch["attention_mask"] == 0), -100)
        network(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    network.save_pretrained(into or folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(into or folder)


def save_pythia(folder: Path, texts: list[str]) -> None:
    """A GPT-NeoX as Pythia lies on the hub, with random weights: half precision, an output layer of
    its own, 512 rows for a smaller vocabulary, runs of spaces as tokens, and no word of a pad token
    in its settings, which are written as they were then."""
    end, pad = "<|endoftext|>", "<|padding|>"
    tokenizer = train_bpe(texts, [end, pad])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.25,
        },
    )
    GPTNeoXForCausalLM(config).half().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), end)
    write_json(folder / "special_tokens_map.json", special)
    settings = {"add_prefix_space": False, "tokenizer_class": "GPTNeoXTokenizer"}
    write_json(folder / "tokenizer_config.json", special | settings)
    facts = json.loads((folder / "config.json").read_text())
    for name in ("rope_parameters", "dtype", "pad_token_id"):
        del facts[name]
    facts |= {"rotary_pct": 0.25, "rotary_emb_base": 10_000, "torch_dtype": "float16"}
    write_json(folder / "config.json", facts)


def save_classifier(folder: Path, texts: list[str]) -> None:
    """A RoBERTa of two labels, whose tokenizer frames every text with <s> and </s>."""
    tokenizer = train_bpe(texts, ["<s>", "<pad>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>"
    )
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=130,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        initializer_range=0.2,  # scores that differ from text to text
        id2label={0: "neutral", 1: "toxic"},
        label2id={"neutral": 0, "toxic": 1},
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def as_in_older_repositories(folder: Path) -> None:
    """Rewrite a saved classifier: weights in a pickle, with a buffer that is no weight any more,
    and the tokenizer as a vocabulary with merges."""
    weights = load_file(folder / "model.safetensors")
    buffer = {"roberta.embeddings.position_ids": torch.arange(130).unsqueeze(0)}
    torch.save({**weights, **buffer}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    Tokenizer.from_file(str(folder / "tokenizer.json")).model.save(str(folder))
    (folder / "tokenizer.json").unlink()
    write_json(folder / "tokenizer_config.json", {"model_max_length": 128})


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def train_bpe(texts: list[str], special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_hub_cache(cache: Path, repository: str, commit: str, files: Path) -> None:
    """A copy of the folder `files` as the hub's cache keeps it: the branch main of a repository,
    which is called `models--org--name` or `datasets--org--name`."""
    home = cache / repository
    for file in sorted(path for path in files.rglob("*") if path.is_file()):
        data = file.read_bytes()
        blob = home / "blobs" / hashlib.sha256(data).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = home / "snapshots" / commit / file.relative_to(files)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / "main").write_text(commit)


def save_reward(reward: Reward, folder: Path, normalizer: Normalizer | None = None) -> Path:
    """As a step saves it: weights and reward.json."""
    extra = reward.save(folder)
    unit = normalizer or Normalizer(0.0, 1.0)
    Facts(reward.kind, unit, {"made_by": "a test"}, 0.25, extra).save(folder)
    return folder


# A short training that does nothing it was not asked to; a test says by `replace` what it is about.
PLAIN_PPO = PPOConfig(
    name="ppo",
    kl_coef=0.1,
    kl_target=None,
    kl_horizon=1000,
    iterations=2,
    batch_size=64,
    epochs=1,
    minibatch_size=32,
    micro_batch_size=None,
    trainable="all",
    last_layers=1,
    lora_rank=4,
    scale_scores=False,
    clip_scores=None,
    learning_rate=1e-3,
    value_learning_rate=1e-2,
    warmup=0.0,
    discount=1.0,
    gae_lambda=0.95,
    clip_range=0.2,
    value_clip_range=0.2,
    value_coef=0.5,
    max_grad_norm=1.0,
    stop_kl=100.0,
    stop_distinct_2=0.0,
)
