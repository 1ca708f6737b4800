"""Checkpoints as a user brings them: saved by transformers alone, with tokenizers unlike ours."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)


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
