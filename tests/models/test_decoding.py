"""What is read token by token is what one pass over all tokens gives."""

from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel

from irl_exp.models import decoding, language_model, trainable
from irl_exp.models.decoding import LibraryReader, NeoXReader

VOCABULARY, PROMPT, ROOM = 40, 5, 30
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def network(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
        **changes,
    )
    return GPTNeoXForCausalLM(config).eval()


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(VOCABULARY, (4, PROMPT), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :3] = mask[2, :1] = 0
    return ids, mask


SHAPES = {
    "as Pythia": {},
    "one residual after the other": {"use_parallel_residual": False},
    "all of a head turns": {"rotary_pct": 1.0},
    "no biases": {"attention_bias": False},
    "embeddings that are shared": {"tie_word_embeddings": True},
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [NeoXReader, LibraryReader])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_reading_on_is_reading_all(kind: type, shape: str, device: str) -> None:
    model = network(**SHAPES[shape]).to(device)  # type: ignore[arg-type]
    ids, mask = (x.to(device) for x in prompts())
    new = torch.randint(VOCABULARY, (4, ROOM), generator=torch.Generator().manual_seed(2))
    new = new.to(device)
    found = kind(model, mask, ROOM)
    for t in range(ROOM):
        logits, state = found.read(ids if t == 0 else new[:, t - 1 : t])
        if t == 7:  # some rows have ended
            rows = torch.tensor([0, 2, 3], device=device)
            found.keep(rows)
            ids, mask, new = ids[rows], mask[rows], new[rows]
            logits, state = logits[rows], state[rows]
        read = torch.cat([ids, new[:, :t]], dim=1)
        known = torch.cat([mask, torch.ones_like(new[:, :t])], dim=1)
        whole = language_model.hidden_states(model, read, known)[:, -1]
        assert torch.allclose(state, whole, atol=1e-5)
        assert torch.allclose(logits, model.get_output_embeddings()(whole), atol=1e-4)


def test_low_rank_updates_are_part_of_what_is_read() -> None:
    model, (ids, mask) = network(), prompts()
    before, _ = NeoXReader(model, mask, 1).read(ids)
    trainable.restrict(model, "lora", 1, 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora" in name:
                weight.normal_()
        logits, _ = NeoXReader(model, mask, 1).read(ids)
        places = language_model.positions(mask)
        expected = model(input_ids=ids, attention_mask=mask, position_ids=places).logits[:, -1]
        assert torch.allclose(logits, expected, atol=1e-3, rtol=1e-4)
        assert not torch.allclose(logits, before, atol=1e-1)
        with trainable.without_updates(model):
            again, _ = NeoXReader(model, mask, 1).read(ids)
    assert torch.allclose(again, before, atol=1e-5)


def test_other_positions_and_dropout_are_left_to_the_library() -> None:
    stretched = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    assert isinstance(decoding.reader(network(), prompts()[1], 2), NeoXReader)
    assert not NeoXReader.reads(network(rope_parameters=stretched))
    assert not NeoXReader.reads(network().train())
