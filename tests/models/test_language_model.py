"""Log-probabilities are those of the full logits, and every checkpoint can be padded."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
)

from irl_exp.config import InputError, ScratchModel
from irl_exp.data import synthetic
from irl_exp.models import generation, language_model, network_reward, reward_kinds
from irl_exp.models.generation import decode, sample_tokens
from irl_exp.models.language_model import EOS, PAD, LanguageModel
from tests.materials import save_pythia

CONF = Path(__file__).parents[2] / "conf" / "model"
PROMPTS = ["", "You", "On the harbour article,", "Looking over Mira's last edit, thanks again,"]
COMPLETIONS = [" you are a silly goose.", "", " the map", " is late, and it is very long!"]


# --- log-probabilities ------------------------------------------------------------------------


def test_completion_log_probs_are_those_of_the_full_logits_one_row_at_a_time(
    tiny: LanguageModel, by_hand: Callable[..., Tensor]
) -> None:
    prompt = language_model.encode_prompts(tiny, PROMPTS, room=16)
    completion = language_model.encode_completions(tiny, COMPLETIONS, max_new_tokens=16)
    with torch.no_grad():
        batched = language_model.completion_log_probs(tiny.network, prompt, completion)
    for row in range(len(PROMPTS)):
        (x, real), (y, written) = (
            (pair[0][row], pair[1][row].bool()) for pair in (prompt, completion)
        )
        expected = by_hand(tiny, x[real].tolist(), y[written].tolist())
        torch.testing.assert_close(batched[row][written], expected, rtol=0, atol=1e-5)
        assert (batched[row][~written] == 0).all()
    assert batched[completion[1].bool()].std() > 0.1  # a uniform model would pass anything


def test_the_enumerated_world_is_what_its_models_say(world: Any) -> None:
    """The language models give every completion the probability that enumeration gives it."""
    prompts, completions = world.all_pairs()
    for model, probs in (
        (world.reference, world.reference_probs),
        (world.aligned, world.aligned_probs),
    ):
        prompt = language_model.encode_prompts(model, prompts, 2)
        completion = language_model.encode_completions(model, completions, 2)
        with torch.no_grad():
            logs = language_model.completion_log_probs(model.network, prompt, completion)
        torch.testing.assert_close(
            logs.sum(-1).exp().view(3, 13).double(), probs, rtol=1e-3, atol=1e-5
        )
        torch.testing.assert_close(probs.sum(-1), torch.ones(3).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_the_output_layer_in_pieces_gives_the_same_values_and_gradients(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 4, generator=generator, requires_grad=True)
    head = nn.Linear(4, 9, bias=False)
    with torch.no_grad():
        head.weight.normal_(generator=generator)
    targets = torch.randint(9, (7,), generator=generator)
    weights = torch.randn(7, generator=generator)

    table = head(hidden).log_softmax(-1)
    expected = table[torch.arange(7), targets]
    gradients = torch.autograd.grad((expected * weights).sum(), (hidden, head.weight))

    values = language_model.token_log_probs(head, hidden, targets, rows)
    torch.testing.assert_close(values, expected)
    found = torch.autograd.grad((values * weights).sum(), (hidden, head.weight))
    torch.testing.assert_close(found, gradients)


# --- tokens -----------------------------------------------------------------------------------


def test_prompt_and_completion_tokenize_as_their_parts(tiny: LanguageModel) -> None:
    """Bytes that no training text held come back too."""
    odd = "Ünïcode 🙂\tand\n two  spaces"
    ids = tiny.tokenizer(odd)["input_ids"]
    assert tiny.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == odd
    text = "On the harbour article, you are a silly goose."
    at = text.index(" you")
    parts = [tiny.tokenizer(part)["input_ids"] for part in (text[:at], text[at:])]
    assert parts[0] + parts[1] == tiny.tokenizer(text)["input_ids"]


def test_long_prompts_lose_their_beginning_and_empty_ones_are_an_end(tiny: LanguageModel) -> None:
    long = " ".join(["first"] + ["the"] * 200 + ["last"])
    ids, mask = language_model.encode_prompts(tiny, [long, "", "You"], room=24)
    assert ids.shape == (3, 64 - 24)
    assert ids[0].tolist() == tiny.tokenizer(long)["input_ids"][-40:]
    eos, pad = tiny.tokenizer.eos_token_id, tiny.tokenizer.pad_token_id
    assert ids[1].tolist() == [pad] * 39 + [eos]
    assert mask[1].tolist() == [0] * 39 + [1]


@pytest.mark.parametrize("room", [64, 65])
def test_a_context_without_room_for_a_prompt_is_refused(tiny: LanguageModel, room: int) -> None:
    with pytest.raises(InputError, match=f"dataset.max_new_tokens={room} .* context of 64"):
        language_model.encode_prompts(tiny, ["You"], room)


def test_completions_are_closed_by_the_end_of_sequence_where_it_fits(tiny: LanguageModel) -> None:
    words = tiny.tokenizer(" the map is late")["input_ids"]
    eos, pad = tiny.tokenizer.eos_token_id, tiny.tokenizer.pad_token_id
    n = len(words)
    for room, expected in ((n + 1, [*words, eos]), (n, words), (n - 1, words[:-1])):
        ids, mask = language_model.encode_completions(tiny, [" the map is late", ""], room)
        assert ids[0].tolist() == expected
        assert ids[1].tolist() == [eos] + [pad] * (len(expected) - 1)
        assert mask.sum(-1).tolist() == [len(expected), 1]


def test_positions_count_real_tokens_alone() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    found = language_model.positions(mask)
    assert found[0, 2:].tolist() == [0, 1, 2]
    assert found[1, :3].tolist() == [0, 1, 2]
    assert found[2].tolist() == [0, 1, 2, 3, 4]


# --- models -----------------------------------------------------------------------------------


def shipped(name: str) -> ScratchModel:
    values: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return ScratchModel(**{key: value for key, value in values.items() if key != "defaults"})


@pytest.fixture(scope="module")
def many_texts() -> list[str]:
    return [comment.text for comment in synthetic.generate(20_000, seed=0)]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("neox-50k", 50e3),
        ("neox-100k", 100e3),
        ("neox-400k", 400e3),
        ("neox-1m5", 1.5e6),
        ("neox-6m", 6e6),
    ],
)
def test_models_are_as_large_as_their_names(name: str, size: float, many_texts: list[str]) -> None:
    config = shipped(name)
    tokenizer = language_model.train_tokenizer(many_texts, config.vocab_size)
    model = language_model.build(config, tokenizer, seed=0)
    # The grammar has too few words for a large vocabulary; real comments fill it.
    missing = (config.vocab_size - len(tokenizer)) * config.hidden_size
    found = sum(parameter.numel() for parameter in model.network.parameters()) + missing
    assert config.name == name
    assert 0.8 * size < found < 1.2 * size


def test_every_scratch_model_has_its_size_tested() -> None:
    assert {path.stem for path in CONF.glob("neox-*.yaml")} == {
        "neox-50k",
        "neox-100k",
        "neox-400k",
        "neox-1m5",
        "neox-6m",
    }


def test_the_seed_decides_the_weights_and_no_global_state_moves(texts: list[str]) -> None:
    config = shipped("neox-50k")
    tokenizer = language_model.train_tokenizer(texts, config.vocab_size)
    before = torch.random.get_rng_state()
    one, same, other = (
        language_model.build(config, tokenizer, seed).network.get_parameter(
            "gpt_neox.embed_in.weight"
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_saved_model_comes_back(tiny: LanguageModel, tiny_folder: Path) -> None:
    loaded = language_model.load(tiny_folder)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(ids).logits, tiny.network(ids).logits)
    assert loaded.context == 64
    assert not loaded.network.training


@pytest.mark.parametrize("pad", [None, "the end"])
def test_a_checkpoint_without_a_pad_token_of_its_own_gets_one(
    tiny: LanguageModel, tmp_path: Path, pad: str | None
) -> None:
    """The rest of its vocabulary keeps its logits."""
    eos = tiny.tokenizer.eos_token
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=language_model.Tokenizer.from_str(
            # Without the pad token that our own tokenizers have.
            tiny.tokenizer.backend_tokenizer.to_str().replace(language_model.PAD, "<|other|>")
        ),
        eos_token=eos,
        pad_token=eos if pad else None,
    )
    LanguageModel(tiny.network, tokenizer).save(tmp_path)
    loaded = language_model.load(tmp_path)
    new = loaded.tokenizer.pad_token_id
    size = len(tokenizer)
    assert new == size != loaded.tokenizer.eos_token_id
    assert loaded.network.config.pad_token_id == new
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before, after = tiny.network(ids).logits, loaded.network(ids).logits
    torch.testing.assert_close(after[..., :size], before[..., :size])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "a folder without config.json; expected a causal language model"),
        ("missing", "no such folder; expected a causal language model"),
        ("no_tokenizer", "its tokenizer is missing or reads nothing; expected a causal"),
        ("no_weights", "expected a causal language model with its tokenizer: "),
    ],
)
def test_a_folder_that_holds_no_model_is_refused(
    tiny: LanguageModel, tmp_path: Path, kind: str, message: str
) -> None:
    folder = tmp_path / kind
    if kind != "missing":
        folder.mkdir()
    if kind.startswith("no_"):
        tiny.save(folder)
        for file in folder.glob("tokenizer*" if kind == "no_tokenizer" else "*.safetensors"):
            file.unlink()
    with pytest.raises(InputError, match=f"{kind}: {message}") as caught:
        language_model.load(folder)
    assert "\n" not in str(caught.value)


class Trap:
    """Unpickled, it leaves a file where it says."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("kind", ["object", "more_than_tensors", "text", "nothing", "half"])
def test_a_pickle_is_tensors_or_is_not_loaded(tiny_folder: Path, tmp_path: Path, kind: str) -> None:
    folder, trap = tmp_path / "model", tmp_path / "sprung"
    shutil.copytree(tiny_folder, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    pickled = folder / "pytorch_model.bin"
    torch.save(weights, pickled)
    assert language_model.load(folder).context == 64

    if kind == "object":
        pickled.write_bytes(pickle.dumps(Trap(trap)))
    elif kind == "more_than_tensors":
        torch.save({**weights, "more": Trap(trap)}, pickled)
    elif kind == "text":
        pickled.write_text("version https://git-lfs.github.com/spec/v1\nsize 12\n")
    else:
        pickled.write_bytes(pickled.read_bytes()[: 0 if kind == "nothing" else 10_000])
    said = {
        "nothing": "its files are damaged .*EOFError",
        "half": "",
    }.get(kind, "its pickled weights are damaged or hold more than tensors, and are not loaded")
    with pytest.raises(InputError, match=f"expected a causal .*: {said}") as caught:
        language_model.load(folder)
    assert "\n" not in str(caught.value)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Trap(trap)))
    assert trap.exists()  # it would have sprung


@pytest.mark.parametrize("length", [0, 4, 5000])
def test_damaged_safetensors(tiny_folder: Path, tmp_path: Path, length: int) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(InputError, match=r"its safetensors are damaged \(.*header") as caught:
        language_model.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"num_hidden_layers": 3}, "it lacks 12 of its weights, as gpt_neox.layers"),
        (
            "config.json",
            {"num_hidden_layers": 10**6},
            "1000000 layers, and there are .* weights",
        ),
        ("config.json", {"num_hidden_layers": 1e999}, "its files are damaged"),
        ("config.json", {"hidden_act": "eval"}, r"files are damaged .*\(KeyError: 'eval'\)"),
        ("config.json", {"hidden_size": 64}, "do not have the sizes that config.json says"),
        ("config.json", {"model_type": "none"}, "ValueError: .* does not recognize"),
        (
            "config.json",
            {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}},
            "it needs Python code of its own, which is never run",
        ),
        ("tokenizer.json", {"model": None}, "expected a causal language model with its tokenizer:"),
    ],
)
def test_a_folder_at_odds_with_itself(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    changes: dict[str, Any],
    message: str,
) -> None:
    """The library would draw missing weights at random, and ask at the terminal to run code."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    facts = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(facts | changes))
    (folder / "code.py").write_text("raise SystemExit('executed')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises(InputError, match=message) as caught:
        language_model.load(folder)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_an_end_is_refused(tiny: LanguageModel, tmp_path: Path) -> None:
    endless = PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer.backend_tokenizer)
    LanguageModel(tiny.network, endless).save(tmp_path)
    with pytest.raises(InputError, match="no end-of-sequence token"):
        language_model.load(tmp_path)


@pytest.mark.parametrize("scaling", [1.0, 4.0])
def test_an_architecture_that_changes_its_logits_is_asked_and_not_trained(
    tiny: LanguageModel, tmp_path: Path, scaling: float
) -> None:
    """Granite divides its logits by a constant: only 1 leaves them plain."""
    config = GraniteConfig(
        vocab_size=len(tiny.tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=1.0,
        logits_scaling=scaling,
    )
    with torch.random.fork_rng():
        LanguageModel(GraniteForCausalLM(config), tiny.tokenizer).save(tmp_path)
    model = language_model.load(tmp_path)
    assert log_probs(model) == pytest.approx(by_hand(model), abs=1e-4)
    if scaling == 1:
        language_model.require_plain_head(model.network)
    else:
        with pytest.raises(InputError, match="transforms its logits"):
            language_model.require_plain_head(model.network)


def test_an_architecture_without_positions_is_asked_a_row_at_a_time(
    tiny: LanguageModel, tmp_path: Path
) -> None:
    """Mamba knows no positions and keeps no keys: padding on the left would be text to it."""
    config = MambaConfig(
        vocab_size=len(tiny.tokenizer), hidden_size=16, num_hidden_layers=1, state_size=4
    )
    with torch.random.fork_rng():
        LanguageModel(MambaForCausalLM(config), tiny.tokenizer).save(tmp_path)
    model = language_model.load(tmp_path)
    assert log_probs(model) == pytest.approx(by_hand(model), abs=1e-4)
    policy = generation.NetworkPolicy(model, 6, 2)
    drawn = [
        policy.sample(["a", "some longer text"], 2, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert drawn[0].completions == drawn[1].completions != drawn[2].completions
    greedy = generation.NetworkPolicy(model, 6, 2, greedy=True)
    alone, both = (
        greedy.sample(prompts, 1, torch.Generator()).completions[0]
        for prompts in (["a"], ["a", "some longer text"])
    )
    assert alone == both
    with pytest.raises(InputError, match="mamba: transformers has no sequence classifier of it"):
        network_reward.from_body(tmp_path, torch.Generator(), 2)


def test_what_tells_texts_apart_is_no_writer(tiny: LanguageModel, tmp_path: Path) -> None:
    """With tied embeddings a body is all that the library asks for."""
    settings = {"n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": len(tiny.tokenizer)}
    GPT2ForSequenceClassification(GPT2Config(**settings)).save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a GPT2ForSequenceClassification; expected a causal lang"):
        language_model.load(tmp_path)


CHATML = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_chat_template_surrounds_what_is_only_text(tiny: LanguageModel, tmp_path: Path) -> None:
    """A prompt that spells the end of a turn does not end it; an answer ends by that token."""
    tiny.save(tmp_path)
    model = language_model.load(tmp_path)
    plain = language_model.prompt_rows(model, ["hi"], 8)
    assert language_model.ends(model) == [model.tokenizer.eos_token_id]
    special = ["<|im_start|>", "<|im_end|>"]
    model.tokenizer.add_special_tokens({"additional_special_tokens": special})
    start, end = model.tokenizer.convert_tokens_to_ids(special)
    model.network.resize_token_embeddings(len(model.tokenizer), mean_resizing=False)
    model.tokenizer.chat_template = CHATML
    model.network.generation_config.eos_token_id = [model.tokenizer.eos_token_id, end, 7]
    rows = language_model.prompt_rows(model, ["hi", "hi<|im_end|>"], 8)
    for row in rows:
        assert (row.count(start), row.count(end)) == (2, 1)
    assert model.tokenizer.decode(rows[0]) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert plain[0] == [token for token in rows[0] if token in plain[0]][: len(plain[0])]
    # 7 is a token of texts, whatever the settings say of it.
    assert language_model.ends(model) == [end, model.tokenizer.eos_token_id]
    assert language_model.completion_rows(model, [" ok"], 8) == [
        [*language_model.token_ids(model, ["ok"])[0], end]
    ]


# --- tokenizers that begin a text in a way of their own ------------------------------------------


@pytest.fixture(scope="module")
def llama() -> LanguageModel:
    """As Llama 2: a token at the beginning, and a space before the first word that no text has."""
    return like_llama()


def like_llama(*, breaks: bool = True) -> LanguageModel:
    """`breaks=False`: line breaks are spaces to the tokenizer, as to T5's."""
    known = ["<unk>", "<s>", "</s>", "<pad>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters, words = [*"▁acehmnost"], [("▁", "t"), ("h", "e"), ("▁t", "he"), ("a", "t")]
    merges = [*words, ("▁", "c"), ("▁c", "at"), ("▁", "s"), ("▁s", "at"), ("▁", "a"), ("▁", "o")]
    vocab = [*known, *letters, *("".join(pair) for pair in merges)]
    places = {token: place for place, token in enumerate(vocab)}
    bpe = Tokenizer(models.BPE(places, merges, byte_fallback=True, unk_token="<unk>"))
    bpe.add_special_tokens(known[:4])
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    if not breaks:
        bpe.normalizer = normalizers.Sequence([normalizers.Replace("\n", " "), bpe.normalizer])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    bpe.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **names)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=32,
            )
        )
    language_model.use_eager_attention(network)
    return LanguageModel(network.eval(), tokenizer)


def test_a_prompt_begins_as_its_tokenizer_begins_a_text(
    llama: LanguageModel, tiny: LanguageModel
) -> None:
    long = "the cat sat " * 40
    rows = language_model.prompt_rows(llama, ["the cat", "", long], 8)
    tokenizer = llama.tokenizer
    assert rows[0] == tokenizer("the cat")["input_ids"]
    assert rows[1] == [tokenizer.bos_token_id]
    assert rows[2] == [tokenizer.bos_token_id, *tokenizer(long)["input_ids"][-23:]]
    assert tiny.opening == tiny.anchor == []


@pytest.mark.parametrize("completion", [" sat on a mat", "s sat", "", "\n\n a", " é\n", "  a"])
def test_a_completion_goes_on_where_its_prompt_ends(llama: LanguageModel, completion: str) -> None:
    """Token by token it is the rest of the whole text, and is read as it was written."""
    prompt = "the cat"
    before = language_model.prompt_rows(llama, [prompt], 8)[0]
    after = language_model.completion_rows(llama, [completion], 30, closed=False)[0]
    assert llama.tokenizer.decode([*before, *after][1:]) == prompt + completion
    assert generation.decode(llama, [after]) == [completion]
    if completion.startswith(" sat"):
        assert [*before, *after] == llama.tokenizer(prompt + completion)["input_ids"]


def test_no_token_is_lost_where_line_breaks_are_spaces() -> None:
    model = like_llama(breaks=False)
    assert model.anchor == []
    rows = language_model.completion_rows(model, [" sat on a mat", "cat"], 30, closed=False)
    assert generation.decode(model, rows) == [" sat on a mat", "cat"]


def test_half_a_character_is_read_as_one(llama: LanguageModel) -> None:
    """At the end of a length, an emoji may be cut; the text before is not touched by that."""
    half = llama.tokenizer.convert_tokens_to_ids("<0xE2>")
    assert generation.decode(llama, [[half], []]) == ["\N{REPLACEMENT CHARACTER}", ""]


def test_the_likelihood_is_that_of_the_text_as_its_tokenizer_reads_it(llama: LanguageModel) -> None:
    ids = torch.tensor([llama.tokenizer("the cat sat on a mat")["input_ids"]])
    first = len(llama.tokenizer("the cat")["input_ids"])
    with torch.no_grad():
        logits = llama.network(input_ids=ids).logits[0].log_softmax(-1)
    expected = logits[:-1].gather(1, ids[0, 1:, None])[first - 1 :].mean()
    end = reward_kinds._log_likelihoods(llama, ["the cat"], [" sat on a mat"], 16, 4, closed=False)
    torch.testing.assert_close(end[0] / end[1], expected.reshape(1))


LLAMA_CHAT = (
    "{{ bos_token }}{% for turn in messages %}{% if turn.role == 'user' %}"
    "[INST] {{ turn.content }} [/INST]{% else %} {{ turn.content }} {{ eos_token }}{% endif %}"
    "{% endfor %}"
)


def test_a_space_that_begins_the_turn_is_there_once(llama: LanguageModel, tmp_path: Path) -> None:
    llama.save(tmp_path)
    model = language_model.load(tmp_path)
    model.tokenizer.chat_template = (
        "{% for turn in messages %}{{ turn.role }}: {{ turn.content }} {% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "cat"}]
    whole = model.tokenizer.apply_chat_template(turns, tokenize=False)
    rows = language_model.prompt_rows(model, ["a"], 4)
    rows += language_model.completion_rows(model, [" cat"], 30, closed=False)
    assert model.tokenizer.decode([*rows[0], *rows[1]]) == whole.rstrip(" ")
    assert generation.written(model, ["a"], rows[1:]) == [" cat"]


def test_a_chat_in_such_a_tokenizer_is_read_as_it_is_rendered(
    llama: LanguageModel, tmp_path: Path
) -> None:
    llama.save(tmp_path)
    model = language_model.load(tmp_path)
    model.tokenizer.chat_template = LLAMA_CHAT
    turns = [{"role": "user", "content": "a mat"}]
    whole = model.tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    rows = language_model.prompt_rows(model, ["a mat"], 4)
    assert rows == [whole]
    turns += [{"role": "assistant", "content": "the cat"}]
    answered = model.tokenizer.apply_chat_template(turns)["input_ids"]
    answer = language_model.completion_rows(model, [" the cat"], 30, closed=False)[0]
    assert [*whole, *answer] == answered[: len(whole) + len(answer)]
    assert generation.decode(model, [answer]) == [" the cat"]


TEXTS = (["a", "some longer text"], [" b", " c d e"])


def log_probs(model: LanguageModel) -> list[float]:
    prompt = language_model.encode_prompts(model, TEXTS[0], 8)
    completion = language_model.encode_completions(model, TEXTS[1], 8)
    with torch.no_grad():
        found = language_model.completion_log_probs(model.network, prompt, completion)
    return found.sum(-1).tolist()


def by_hand(model: LanguageModel) -> list[float]:
    """One text at a time, by the network's own loss."""
    found = []
    for prompt, completion in zip(*TEXTS, strict=True):
        before, after = language_model.token_ids(model, [prompt, completion])
        ids = torch.tensor([[*before, *after, model.tokenizer.eos_token_id]])
        labels = ids.clone()
        labels[:, : len(before)] = -100
        with torch.no_grad():
            loss = model.network(input_ids=ids, labels=labels).loss
        found.append(-float(loss) * (ids.shape[1] - len(before)))
    return found


# --- Pythia -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pythia(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp("pythia")
    save_pythia(folder, texts)
    return language_model.load(folder)


def test_pythia_is_padded_with_the_token_that_it_has_for_that(
    pythia: LanguageModel, texts: list[str]
) -> None:
    network, tokenizer = pythia.network, pythia.tokenizer
    assert (tokenizer.pad_token, tokenizer.pad_token_id, tokenizer.eos_token_id) == (PAD, 1, 0)
    assert network.config.pad_token_id == 1
    assert len(tokenizer) < network.get_input_embeddings().num_embeddings == 512
    assert (pythia.context, network.dtype) == (2048, torch.float32)
    assert network.config.rope_parameters["partial_rotary_factor"] == 0.25
    odd = [f"{EOS} and {PAD}", "many     spaces", "", "Ünïcode 🙂"]
    rows = language_model.token_ids(pythia, [*texts, *odd])
    assert {0, 1}.isdisjoint(token for row in rows for token in row)
    assert [tokenizer.decode(row) for row in rows[-4:]] == odd


def test_log_probs_of_pythia_are_those_of_the_full_logits(
    pythia: LanguageModel, by_hand: Callable[..., Tensor]
) -> None:
    prompt = language_model.encode_prompts(pythia, PROMPTS, room=16)
    completion = language_model.encode_completions(pythia, COMPLETIONS, max_new_tokens=16)
    with torch.no_grad():
        batched = language_model.completion_log_probs(pythia.network, prompt, completion)
    for row in range(len(PROMPTS)):
        (x, real), (y, written) = (
            (pair[0][row], pair[1][row].bool()) for pair in (prompt, completion)
        )
        expected = by_hand(pythia, x[real].tolist(), y[written].tolist())
        torch.testing.assert_close(batched[row][written], expected, rtol=0, atol=1e-4)


def test_tokens_that_pythia_has_no_words_for_are_no_words(pythia: LanguageModel) -> None:
    """Its output layer has more rows than its vocabulary, and all can be drawn."""
    prompt = language_model.encode_prompts(pythia, PROMPTS * 8, room=12)
    ids, written = sample_tokens(pythia, prompt, 12, torch.Generator().manual_seed(0))[:2]
    beyond = (ids >= len(pythia.tokenizer)) & written.bool()
    assert 0.05 < beyond.sum() / written.sum() < 0.5
    known = [[token for token in row if token < len(pythia.tokenizer)] for row in ids.tolist()]
    expected = [pythia.tokenizer.decode(row, skip_special_tokens=True) for row in known]
    texts = decode(pythia, ids)
    assert texts == expected
    assert len(set(texts)) > 20
    again = language_model.encode_completions(pythia, texts, 12)
    with torch.no_grad():
        logs = language_model.completion_log_probs(pythia.network, prompt, again)
    assert torch.isfinite(logs).all()
