"""Which parts train, in every family of models, and that the others stay as they are."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)
from transformers.pytorch_utils import Conv1D

from irl_exp.config import InputError
from irl_exp.models.trainable import blocks, merge, restrict, used_embeddings
from irl_exp.modules.training import adamw
from irl_exp.validation import TRAINABLE

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
CLASSIFIER = {**SIZES, "num_labels": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0}
GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 2, "num_labels": 1, "pad_token_id": 1}
# A family -> how a classifier of it is built; where its last block stands, what of the body follows
# it, and its head.
FAMILIES: dict[str, tuple[Callable[[], PreTrainedModel], tuple[str, ...]]] = {
    "neox": (
        lambda: GPTNeoXForSequenceClassification(GPTNeoXConfig(**CLASSIFIER)),
        ("gpt_neox.layers.2.", "gpt_neox.final_layer_norm.", "score."),
    ),
    "gpt2": (
        lambda: GPT2ForSequenceClassification(
            GPT2Config(vocab_size=50, bos_token_id=0, eos_token_id=0, **GPT2)
        ),
        ("transformer.h.2.", "transformer.ln_f.", "score."),
    ),
    "llama": (
        lambda: LlamaForSequenceClassification(LlamaConfig(**CLASSIFIER)),
        ("model.layers.2.", "model.norm.", "score."),
    ),
    "bert": (
        lambda: BertForSequenceClassification(BertConfig(**CLASSIFIER)),
        ("bert.encoder.layer.2.", "bert.pooler.", "classifier."),
    ),
    "roberta": (
        lambda: RobertaForSequenceClassification(RobertaConfig(**CLASSIFIER)),
        ("roberta.encoder.layer.2.", "classifier."),
    ),
}
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def build(family: str) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FAMILIES[family][0]().eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(network: nn.Module) -> set[str]:
    return {name for name, p in network.named_parameters() if p.requires_grad}


def scores(network: PreTrainedModel) -> Tensor:
    return network(input_ids=IDS).logits[:, 0]


def train(network: PreTrainedModel, steps: int = 3) -> None:
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        (scores(network) * torch.tensor([1.0, -0.5])).sum().backward()
        optimizer.step()


def test_all_is_all(family: str) -> None:
    network = build(family)
    restrict(network, "all", 1, 2, generator())
    assert trained(network) == {name for name, _ in network.named_parameters()}


def test_the_last_layers_end_with_the_head(family: str) -> None:
    network, expected = build(family), FAMILIES[family][1]
    restrict(network, "last_layers", 1, 2, generator())
    names = [name for name, _ in network.named_parameters()]
    assert trained(network) == {name for name in names if name.startswith(expected)}
    assert all(any(name.startswith(part) for name in names) for part in expected)


def test_the_head_alone(family: str) -> None:
    network, head = build(family), FAMILIES[family][1][-1]
    restrict(network, "head", 1, 2, generator())
    assert trained(network) == {n for n, _ in network.named_parameters() if n.startswith(head)}


def test_every_linear_layer_of_the_body_is_updated(family: str) -> None:
    network, head = build(family), FAMILIES[family][1][-1]
    linear = {n for n, m in network.base_model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    restrict(network, "lora", 1, 2, generator())
    body = {f"{n}.lora_{ab}.default.weight" for n in linear for ab in "AB"}
    assert {n for n in trained(network.base_model)} == body
    assert {n for n in trained(network) if ".lora_" not in n} == {
        n for n, _ in network.named_parameters() if n.startswith(head)
    }
    ranks = {p.shape[0] for n, p in network.named_parameters() if ".lora_A." in n}
    assert ranks == {2}


@pytest.mark.parametrize("kind", TRAINABLE)
def test_what_does_not_train_stays_to_the_bit(family: str, kind: str) -> None:
    network = build(family)
    restrict(network, kind, 2, 2, generator())
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    started = scores(network).detach()
    train(network)
    changed = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    assert changed == trained(network)
    assert not torch.allclose(scores(network), started, atol=1e-3)


def test_updates_begin_with_none_and_are_merged(family: str) -> None:
    """The scores of the merged network are those it was trained to, under its first names."""
    network = build(family)
    names, started = list(network.state_dict()), scores(network)
    restrict(network, "lora", 1, 2, generator())
    torch.testing.assert_close(scores(network), started)
    frozen = {
        name: p.detach().clone()
        for name, p in network.named_parameters()
        if not p.requires_grad and "base_layer" not in name
    }
    train(network)
    expected = scores(network)
    merge(network)
    torch.testing.assert_close(scores(network), expected, rtol=0, atol=1e-5)
    assert list(network.state_dict()) == names
    assert not any("peft" in type(module).__module__ for module in network.modules())
    assert all(torch.equal(network.get_parameter(name), p) for name, p in frozen.items())
    restrict(network, "lora", 1, 2, generator())  # and again, as a plain network can be


@pytest.mark.parametrize("kind", ["all", "last_layers", "head"])
def test_where_nothing_was_added_there_is_nothing_to_merge(kind: str) -> None:
    network = build("neox")
    restrict(network, kind, 1, 2, generator())
    train(network)
    expected = scores(network)
    merge(network)
    assert torch.equal(scores(network), expected)


def test_updates_are_drawn_from_the_generator_alone() -> None:
    def drawn(seed: int) -> Tensor:
        network = build("neox")
        restrict(network, "lora", 1, 2, generator(seed))
        return torch.cat([p.flatten() for n, p in network.named_parameters() if ".lora_A." in n])

    state = torch.get_rng_state()
    first = drawn(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(drawn(1), first)
    assert not torch.equal(drawn(2), first)
    torch.set_rng_state(state)


def test_more_layers_than_there_are(family: str) -> None:
    restrict(build(family), "last_layers", 3, 2, generator())
    with pytest.raises(InputError, match=r"last_layers=4: the body has 3 layers; expected at most"):
        restrict(build(family), "last_layers", 4, 2, generator())


@pytest.mark.parametrize("kind", ["last_layers", "lora", "head"])
def test_a_policy_keeps_embeddings_that_are_its_output_layer(kind: str) -> None:
    network = GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, tie_word_embeddings=True))
    restrict(network, kind, 1, 2, generator())
    assert not network.get_output_embeddings().weight.requires_grad
    assert bool(trained(network)) == (kind != "head")


def test_the_layers_are_not_the_experts_of_one_of_them() -> None:
    """A mixture of more experts than there are layers."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(2, 2) for _ in range(5))

    body = nn.ModuleDict({"heads": nn.ModuleList(), "layers": nn.ModuleList([Layer(), Layer()])})
    assert blocks(body) is body["layers"]
    assert len(blocks(nn.Linear(2, 2))) == 0


@pytest.mark.parametrize("family", ["neox", "gpt2", "llama", "bert", "roberta"])
def test_embeddings_of_tokens_that_are_not_used_need_not_train(family: str) -> None:
    """They end as AdamW would have left them, and so does all else."""
    torch.manual_seed(0)
    network = FAMILIES[family][0]().eval()
    other = copy.deepcopy(network)
    rows = [[5, 9, 9, 31], [7, 5, 1, 1]]
    _step(network, rows)
    with used_embeddings(other, [[5, 9, 9, 31], [7, 5]]):
        assert other.get_input_embeddings().weight.shape == (5, 16)
        _step(other, rows)
    trained = dict(network.named_parameters())
    assert [name for name, _ in other.named_parameters()] == list(trained)
    for name, weights in other.named_parameters():
        torch.testing.assert_close(weights, trained[name], rtol=1e-5, atol=1e-6)
    beside = other(torch.tensor([[40, 41]])).logits  # tokens that stand in no row
    torch.testing.assert_close(beside, network(torch.tensor([[40, 41]])).logits)


def test_embeddings_are_left_alone_where_most_are_used() -> None:
    network = FAMILIES["neox"][0]()
    before = network.get_input_embeddings()
    with used_embeddings(network, [list(range(2, 30))]):
        assert network.get_input_embeddings() is before
    restrict(network, "head", 1, 1, torch.Generator())
    with used_embeddings(network, [[3]]):
        assert network.get_input_embeddings() is before


def _step(network: PreTrainedModel, rows: list[list[int]]) -> None:
    ids = torch.tensor(rows)
    made = adamw(network, learning_rate=0.01, weight_decay=0.1, warmup=0.0, steps=4)
    for _ in range(3):
        made["optimizer"].zero_grad()
        network(input_ids=ids, attention_mask=(ids != 1).long()).logits.sum().square().backward()
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
