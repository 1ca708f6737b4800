"""What a network gives a text depends on that text alone; classifiers fold into one output."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from irl_exp.config import InputError
from irl_exp.models import network_reward, saved_rewards
from irl_exp.models.language_model import LanguageModel
from irl_exp.models.network_reward import NetworkReward, from_body, from_classifier, passes
from irl_exp.models.reward_kinds import LengthReward
from irl_exp.models.reward_model import Facts, Normalizer
from irl_exp.models.saved_rewards import load_normalized, load_reward
from tests.materials import (
    as_in_older_repositories,
    save_classifier,
    save_pythia,
    save_reward,
)


def left_padded(reward: NetworkReward, texts: list[str], extra: int) -> Tensor:
    """Scores through the Hugging Face model alone, padded on the left and by `extra` more."""
    eos, pad = reward.tokenizer.eos_token_id, reward.tokenizer.pad_token_id
    rows = [reward.tokenizer(text)["input_ids"] or [eos] for text in texts]
    width = max(map(len, rows)) + extra
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    with torch.no_grad():
        return reward.network(input_ids=ids, attention_mask=mask).logits[:, 0]


# --- padding and batches ----------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_scores_do_not_depend_on_the_batch(
    reward: NetworkReward, pairs: tuple[list[str], list[str]], batch_size: int
) -> None:
    found = NetworkReward(reward.network, reward.tokenizer, batch_size).score(*pairs)
    alone = torch.cat([reward.score([p], [c]) for p, c in zip(*pairs, strict=True)])
    assert found.dtype == torch.float32 and found.shape == (100,)
    assert found.std() > 0.1
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("extra", [0, 5])
def test_scores_do_not_depend_on_side_and_amount_of_padding(
    reward: NetworkReward, pairs: tuple[list[str], list[str]], extra: int
) -> None:
    whole = [prompt + completion for prompt, completion in zip(*pairs, strict=True)]
    expected = left_padded(reward, whole, extra)
    torch.testing.assert_close(reward.score(*pairs), expected, rtol=0, atol=1e-5)
    rows = network_reward.encode(reward.tokenizer, reward.network, *pairs)
    with torch.no_grad():
        padded = reward.forward([*rows, [5] * (60 if extra else 1)])[:-1]
    torch.testing.assert_close(padded, expected, rtol=0, atol=1e-5)


def test_the_cut_between_prompt_and_completion_moves_no_score(
    reward: NetworkReward, pairs: tuple[list[str], list[str]]
) -> None:
    whole = [prompt + completion for prompt, completion in zip(*pairs, strict=True)]
    nothing = [""] * len(whole)
    assert torch.equal(reward.score(*pairs), reward.score(whole, nothing))
    assert torch.equal(reward.score(*pairs), reward.score(nothing, whole))


def test_long_texts_lose_their_beginning(reward: NetworkReward) -> None:
    """The context holds 64 tokens: what stands before the last 64 has no influence."""
    ending = " the map is late" * 30
    ids = reward.tokenizer(ending)["input_ids"]
    assert len(ids) > 64
    scores = reward.score(["You fool", "A kind"], [ending, ending])
    assert scores[0] == scores[1]
    assert not torch.isclose(reward.score([""], [ending + " now"]), scores[:1])
    with torch.no_grad():
        expected = reward.network(torch.tensor([ids[-64:]])).logits[:, 0]
    torch.testing.assert_close(scores[:1], expected, rtol=0, atol=1e-5)


def test_texts_that_lose_their_beginning_are_counted(reward: NetworkReward) -> None:
    letters = ["x" * n for n in (63, 64, 65, 200)]
    lengths = [len(reward.tokenizer(text)["input_ids"]) for text in letters]
    assert saved_rewards.truncated(reward, letters) == sum(n > 64 for n in lengths) > 0
    assert saved_rewards.truncated(reward, ["", "a"]) == 0
    assert saved_rewards.truncated(LengthReward(1.0), letters) == 0


def test_scores_are_linear_in_the_features(
    reward: NetworkReward, pairs: tuple[list[str], list[str]]
) -> None:
    features = reward.features(*pairs)
    assert features.shape == (100, 32)
    weight = reward.network.get_submodule("score").weight[0].detach()
    torch.testing.assert_close(features @ weight, reward.score(*pairs), rtol=0, atol=1e-4)


def test_an_empty_text_is_one_end_of_sequence(reward: NetworkReward) -> None:
    eos = reward.tokenizer.eos_token_id
    with torch.no_grad():
        expected = reward.network(torch.tensor([[eos]])).logits[:, 0]
    torch.testing.assert_close(reward.score([""], [""]), expected, rtol=0, atol=1e-5)


def test_a_score_that_is_not_finite_is_refused(tiny_folder: Path) -> None:
    broken = from_body(tiny_folder, torch.Generator().manual_seed(0), 8)
    with torch.no_grad():
        broken.network.get_parameter("score.weight").fill_(torch.inf)
    with pytest.raises(InputError, match="2 of 2 texts a score that is not finite"):
        broken.score(["You", "I"], ["", ""])


def test_no_comment_encodes_to_the_pad_token_or_the_end(
    reward: NetworkReward, texts: list[str]
) -> None:
    specials = {reward.tokenizer.pad_token_id, reward.tokenizer.eos_token_id}
    assert len(specials) == 2
    assert reward.network.config.pad_token_id == reward.tokenizer.pad_token_id
    rows = network_reward.encode(reward.tokenizer, reward.network, texts, [""] * len(texts))
    assert specials.isdisjoint(token for row in rows for token in row)


def test_no_text_encodes_to_the_pad_token_or_the_end(reward: NetworkReward) -> None:
    """Not even one that spells their names."""
    names = [reward.tokenizer.pad_token, reward.tokenizer.eos_token]
    rows = network_reward.encode(reward.tokenizer, reward.network, names, [" you fool"] * 2)
    specials = {reward.tokenizer.pad_token_id, reward.tokenizer.eos_token_id}
    assert specials.isdisjoint(token for row in rows for token in row)


# --- a language model's body ------------------------------------------------------------------


def test_a_new_head_is_drawn_from_the_generator_alone(
    tiny_folder: Path, tiny: LanguageModel
) -> None:
    before = torch.random.get_rng_state()
    one, same, other = (
        from_body(tiny_folder, torch.Generator().manual_seed(seed), 8) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    heads = [reward.network.get_parameter("score.weight") for reward in (one, same, other)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    for name, weight in tiny.network.base_model.named_parameters():
        assert torch.equal(weight, one.network.base_model.get_parameter(name))


def test_the_body_of_pythia_scores_a_text_as_plain_transformers_does(
    tmp_path: Path, pairs: tuple[list[str], list[str]]
) -> None:
    """Whose settings name no pad token: alone and without padding a text needs none."""
    save_pythia(tmp_path, [p + c for p, c in zip(*pairs, strict=True)])
    reward = from_body(tmp_path, torch.Generator().manual_seed(0), batch_size=8)
    found = reward.score(*pairs)
    folder = save_reward(reward, tmp_path / "reward")
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for prompt, completion, score in zip(*pairs, found, strict=True):
        ids = tokenizer(prompt + completion)["input_ids"] or [tokenizer.eos_token_id]
        with torch.no_grad():
            expected = plain(torch.tensor([ids])).logits[0, 0]
        torch.testing.assert_close(score, expected, rtol=0, atol=1e-5)
    assert found.std() > 0.1


# --- classifiers ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier(
    tiny: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Builds a random classifier with some labels, in a folder with its own tokenizer."""

    def make(labels: list[str], kind: str | None, bert: bool = False) -> Path:
        config_class: Any = BertConfig if bert else RobertaConfig
        network_class: Any = (
            BertForSequenceClassification if bert else RobertaForSequenceClassification
        )
        config = config_class(
            vocab_size=len(tiny.tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=66,
            type_vocab_size=1,
            pad_token_id=tiny.tokenizer.pad_token_id,
            initializer_range=0.5,
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
            problem_type=kind,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = network_class(config).eval()
            head = network.classifier if bert else network.classifier.out_proj
            with torch.no_grad():
                head.bias.normal_()
        folder = tmp_path_factory.mktemp("classifier")
        network.save_pretrained(folder)
        tiny.tokenizer.save_pretrained(folder)
        return folder

    return make


def logits(folder: Path, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Tensor:
    """All logits of the classifier as it was, one text at a time: [n, labels]."""
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return torch.cat([network(torch.tensor([tokenizer(t)["input_ids"]])).logits for t in texts])


TEXTS = ["You are a silly goose.", "the map is late, thanks", "On the harbour article, no"]
MULTI = "multi_label_classification"


@pytest.mark.parametrize("bert", [False, True])
@pytest.mark.parametrize(
    ("labels", "toxic", "kind", "weights"),
    [
        (["neutral", "toxic"], "toxic", None, [1.0, -1.0]),
        (["toxic", "neutral"], "Toxic", "single_label_classification", [-1.0, 1.0]),
        (["hate", "offensive", "neither"], "offensive", None, [0.5, -1.0, 0.5]),
        (["toxic", "obscene", "insult"], "insult", MULTI, [0.0, 0.0, -1.0]),
        (["toxicity"], "toxicity", None, [-1.0]),
    ],
)
def test_a_classifier_folds_into_one_output_exactly(
    classifier: Callable[..., Path],
    tiny: LanguageModel,
    tmp_path: Path,
    labels: list[str],
    toxic: str,
    kind: str | None,
    weights: list[float],
    bert: bool,
) -> None:
    folder = classifier(labels, kind, bert)
    reward = from_classifier(folder, toxic, batch_size=8)
    expected = logits(folder, tiny.tokenizer, TEXTS) @ torch.tensor(weights)
    found = reward.score(TEXTS, [""] * 3)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    loaded = load_reward(save_reward(reward, tmp_path))
    torch.testing.assert_close(loaded.score(TEXTS, [""] * 3), found, rtol=1e-5, atol=1e-5)


def test_two_labels_give_the_log_odds_of_not_toxic(
    classifier: Callable[..., Path], tiny: LanguageModel
) -> None:
    folder = classifier(["neutral", "toxic"], None)
    probs = logits(folder, tiny.tokenizer, TEXTS).softmax(-1)
    found = from_classifier(folder, "toxic", 8).score(TEXTS, [""] * 3)
    torch.testing.assert_close(found, (probs[:, 0] / probs[:, 1]).log(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("bert", [False, True])
def test_a_classifier_reads_as_much_as_its_positions_hold(
    classifier: Callable[..., Path], tiny: LanguageModel, bert: bool
) -> None:
    """66 positions; RoBERTa's start behind the pad token's number, which is 1."""
    reward = from_classifier(classifier(["good", "bad"], None, bert), "bad", 8)
    long = "the map is late, and " * 40
    rows = network_reward.encode(reward.tokenizer, reward.network, [long], [""])
    assert rows[0] == tiny.tokenizer(long)["input_ids"][-66 if bert else -64 :]
    assert torch.isfinite(reward.score([long, "You"], ["", ""])).all()


def test_an_absent_label_is_refused_with_the_labels_there_are(
    classifier: Callable[..., Path],
) -> None:
    folder = classifier(["hate", "offensive", "neither"], None)
    with pytest.raises(InputError) as caught:
        from_classifier(folder, "toxic", 8)
    assert "toxic_label=toxic" in str(caught.value)
    assert "hate, offensive, neither" in str(caught.value)


def test_a_folder_without_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a text classifier with its tokenizer"):
        from_classifier(tmp_path, "toxic", 8)


def test_a_head_that_would_be_random_is_refused(tiny_folder: Path) -> None:
    """A language model's folder has a body for a classifier, and no head."""
    with pytest.raises(InputError, match=r"it lacks 1 of its weights, as score\.weight"):
        from_classifier(tiny_folder, "LABEL_1", 8)


def test_a_classifier_as_older_repositories_keep_it(tmp_path: Path, texts: list[str]) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    save_classifier(new, texts)
    shutil.copytree(new, old)
    as_in_older_repositories(old)
    assert not {file.name for file in old.iterdir()} & {"tokenizer.json", "model.safetensors"}
    expected, found = (
        from_classifier(folder, "toxic", 8).score(texts[:20], [""] * 20) for folder in (new, old)
    )
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_saved_network_gives_the_same_scores(
    reward: NetworkReward, pairs: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    expected = reward.score(*pairs)
    save_reward(reward, tmp_path, Normalizer(-1.5, 0.5))
    raw, normalized = load_reward(tmp_path, 16), load_normalized(tmp_path, 16)
    assert raw.kind == "network"
    torch.testing.assert_close(raw.score(*pairs), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(normalized.score(*pairs), (expected + 1.5) / 0.5, rtol=0, atol=1e-4)
    # Anyone's library reads the folder.
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert network.config.num_labels == 1


def test_a_classifier_with_two_outputs_is_no_reward(classifier: Callable[..., Path]) -> None:
    folder = classifier(["good", "bad"], None)
    Facts("network", Normalizer(0.0, 1.0), {}).save(folder)
    with pytest.raises(InputError, match="expected one output, found 2"):
        load_reward(folder)


def test_rows_pass_in_the_order_of_their_lengths_and_with_little_padding() -> None:
    assert passes([1, 2, 3, 4], size=2, tokens=100) == [2, 2]
    assert passes([2, 2, 5, 5, 9, 30], size=4, tokens=12) == [2, 2, 1, 1]
    assert passes([7], size=4, tokens=1) == [1]
