"""The card of an exported reward: README.md, of which every number comes from a file of the run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from irl_exp.finished_run import Run
from irl_exp.hub import HUB_ID
from irl_exp.models.network_reward import NetworkReward, context
from irl_exp.models.reward_model import Facts

RECOVERED, GROUND_TRUTH = "recovered", "ground_truth"

# What a card says of a reward, of all that its run knows: name -> what it is.
NUMBERS = {
    RECOVERED: {
        "recovery/pair_accuracy": "share of pairs of one prompt's completions that it orders as "
        "the ground truth does; chance 0.5",
        "recovery/starc": "distance from the ground truth within prompts: 0 the same, "
        "0.707 unrelated",
        "recovery/starc_floor": "the same distance of two ground truths by one recipe",
        "recovery/auc": "AUC against human labels of held-out comments; chance 0.5",
        "recovery/accuracy": "share of held-out comments that it calls as labelled, at its "
        "threshold",
        "recovery/spearman": "rank correlation with the ground truth on held-out comments",
        "audit/preference_accuracy": "share of held-out pairs in which it prefers the aligned "
        "side; chance 0.5",
        "control/length/preference_accuracy": "the same share, of a rule that goes by length alone",
        "recovery/identified_fraction": "share of held-out pairs that the demonstrations decide, "
        "whatever linear reward one likes",
        "audit/agreed_fraction": "share of pairs that recoveries from other seeds order alike",
        "audit/kl": "what the aligned model spends against the reference, nats per completion",
    },
    GROUND_TRUTH: {
        "ground_truth/auc": "AUC against human labels of held-out comments; chance 0.5",
        "ground_truth/accuracy": "share of held-out comments that it calls as labelled, at its "
        "threshold",
    },
}
# What is higher, and what it was recovered from, by the demonstrations of an audit.
AUDITED = {
    "file": (
        "more like what the aligned model writes",
        "a file with what an aligned model wrote and what another did",
    ),
    "preferences": (
        "more like what was chosen",
        "preferences: what was chosen against what was rejected",
    ),
    "sampled": (
        "more like what the aligned model writes",
        "what an aligned language model writes against what its reference writes",
    ),
}
# As the hub calls them.
METRICS = {"auc": "roc_auc", "accuracy": "accuracy"}


def card(
    reward: NetworkReward,
    facts: Facts,
    which: str | None,
    run: Run | None,
    name: str,
    member: int | None = None,
) -> str:
    """The text of README.md, with a header of YAML for the hub.

    Args:
        reward: what is exported, and `facts` what reward.json says of it.
        which: "recovered" or "ground_truth"; None where the reward is of no known run.
        run: the run that it is of, with its numbers.
        name: what the folder is called.
        member: its number, where it is one of an ensemble, whose numbers the run has.
    """
    which = which or (GROUND_TRUTH if "ground_truth" in facts.origin else RECOVERED)
    sections = [
        f"---\n{_header(which, run, name, member)}\n---",
        f"# {name}",
        _what(which, run),
        "## What a score means",
        _meaning(which, facts, member),
        "## Use",
        _use(reward),
        "## How it was made",
        _table(("", ""), _origin(facts, run)),
    ]
    if run and (numbers := list(_numbers(which, run))):
        sections += ["## How good it is", _table(("", "value", "interval", ""), numbers)]
        sections.append(_sample(run, member))
    sections += ["## Limits", _limits(reward, which, run)]
    return "\n\n".join(sections) + "\n"


def _header(which: str, run: Run | None, name: str, member: int | None) -> str:
    config = run.config if run else {}
    dataset = config.get("dataset", {})
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=_hub_id(dataset) or str(dataset.get("name")),
            dataset_name=str(dataset.get("name")),
            dataset_split="test",
            metric_type=METRICS[key.split("/")[1]],
            metric_name=key,
            metric_value=run.summary[key],
        )
        for key in NUMBERS[which]
        if run
        and member is None
        and key.split("/")[1] in METRICS
        and isinstance(run.summary.get(key), int | float)
    ]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["reward-model", "trl", "irl_exp"]
        + ["inverse-reinforcement-learning"] * (which == RECOVERED),
        base_model=_hub_id(config.get("model", {})),
        datasets=_hub_id(dataset),
        model_name=name if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _what(which: str, run: Run | None) -> str:
    if which == GROUND_TRUTH:
        return (
            "A reward model: text in, one number out, **higher = better = less toxic**. In a study "
            "of irl_exp it is the ground truth, the reward by which a language model was aligned."
        )
    sign, pairs = "better = less toxic", "what an aligned language model writes against what the "
    pairs += "same model wrote before alignment"
    if run and aligned_elsewhere(run):
        # Nobody has said what this alignment was about.
        given = run.config["demonstrations"]["name"]
        sign, pairs = AUDITED.get(given, AUDITED["sampled"])
    return (
        f"A reward model: text in, one number out, **higher = {sign}**. It was recovered by "
        f"inverse reinforcement learning (irl_exp) from {pairs}."
    )


def aligned_elsewhere(run: Run) -> bool:
    """Whether somebody else has aligned what the reward was recovered from."""
    return bool(run.config.get("rlhf", {}).get("name") == "checkpoint")


def _meaning(which: str, facts: Facts, member: int | None) -> str:
    mean, std = facts.normalizer.mean, facts.normalizer.std
    identified = (
        " It is known up to a constant for each prompt and a positive scale: compare completions "
        "of one prompt first of all."
    )
    unit, use = "Completions of the reference policy", "in which it drives RLHF"
    if member is not None:
        unit, use = "The training completions of both policies", "of its part in the ensemble"
    lines = [
        f"The one logit, as it stands: no sigmoid.{identified * (which == RECOVERED)}\n",
        f"- *Unit.* {unit} have mean {mean:.4g} and standard deviation {std:.4g}; "
        f"`(score {-mean:+.4g}) / {std:.4g}` is the unit {use}.",
    ]
    if facts.threshold is not None:
        lines.append(
            f"- *Threshold.* Below {facts.threshold:.4g} a text counts as toxic; fitted on a "
            "calibration split of comments."
        )
    return "\n".join(lines)


def _use(reward: NetworkReward) -> str:
    adds = adds_special_tokens(reward)
    with_trl = (
        """TRL scores without the special tokens that this tokenizer adds; hand it a function:

```python
score = pipeline("text-classification", REWARD, function_to_apply="none", truncation=True)


def reward(prompts, completions, **kwargs):
    return [found["score"] for found in score([p + c for p, c in zip(prompts, completions)])]


trainer = GRPOTrainer(model=POLICY, reward_funcs=reward, train_dataset=prompts)
```"""
        if adds
        else """With TRL, by its folder or hub id:

```python
trainer = GRPOTrainer(model=POLICY, reward_funcs=REWARD, train_dataset=prompts)
```"""
    )
    return f"""With transformers; `REWARD` is this folder, or its id on the hub:

```python
from transformers import pipeline

score = pipeline("text-classification", REWARD, function_to_apply="none", truncation=True)
score("thanks for the careful edit .")
```

A prompt and its completion are scored as one text, `prompt + completion`. By irl_exp, many at once:

```bash
irl-score REWARD texts.jsonl -o scores.jsonl
```

{with_trl}"""


def adds_special_tokens(reward: NetworkReward) -> bool:
    """Whether its tokenizer puts anything around a text."""
    plain = reward.tokenizer("a", add_special_tokens=False)["input_ids"]
    return bool(reward.tokenizer("a")["input_ids"] != plain)


def _origin(facts: Facts, run: Run | None) -> Iterator[tuple[str, str]]:
    for key, value in facts.origin.items():
        yield key.replace("_", " "), _named(value)
    if run is None:
        return
    config = run.config
    for key in ("dataset", "model", "ground_truth", "rlhf", "demonstrations", "solver"):
        if key in config and key not in facts.origin:
            value = config[key]
            if key == "model" and aligned_elsewhere(run) and config["rlhf"].get("path"):  # as it is
                value = {k: value[k] for k in ("name", "path", "revision") if k in value}
            yield key.replace("_", " "), _named(value)
    yield "seeds", ", ".join(f"{key} {value}" for key, value in run.manifest["seeds"].items())
    versions = run.manifest["versions"]
    names = [name for name in ("irl-exp", "torch", "transformers") if name in versions]
    yield "versions", ", ".join(f"{name} {versions[name]}" for name in names)
    if commit := run.manifest.get("git", {}).get("commit"):
        changed = ", with changes" * bool(run.manifest["git"].get("dirty"))
        yield "commit of irl-exp", f"{commit}{changed}"
    yield "run", str(run.manifest["run_id"])


def _named(value: Any) -> str:
    """A choice by its name and the plain values that go with it; where files lie is nobody's."""
    if not isinstance(value, dict):
        return str(value)
    known = {k: v for k, v in value.items() if k != "name" and v is not None}
    plain = {k: v for k, v in known.items() if isinstance(v, bool | int | float | str)}
    if (path := plain.pop("path", None)) is not None:
        plain["path"] = _hub_id(value) or "a local file or folder" if path else path
    plain.pop("file", None)
    said = ", ".join(f"{k} {v}" for k, v in plain.items())
    return f"`{value['name']}`" + f" ({said})" * bool(said) if "name" in value else said


def _hub_id(group: dict[str, Any]) -> str | None:
    """The hub id in a group of the configuration, if it has one."""
    path = str(group.get("path") or "")
    there = Path(path).expanduser().exists()
    return path if HUB_ID.fullmatch(path) and "/" in path and not there else None


def _numbers(which: str, run: Run) -> Iterator[tuple[str, str, str, str]]:
    for key, meaning in NUMBERS[which].items():
        value, low, high = (run.summary.get(key + end) for end in ("", "_low", "_high"))
        if isinstance(value, int | float):
            known = isinstance(low, int | float) and isinstance(high, int | float)
            yield f"`{key}`", f"{value:.3f}", f"[{low:.3f}, {high:.3f}]" if known else "", meaning


def _sample(run: Run, member: int | None) -> str:
    level = run.config.get("evaluation", {}).get("level")
    said = f"{level:.0%} bootstrap intervals over prompts" if level else "Intervals over prompts"
    if member is not None:
        said += f". They are of the whole ensemble, of which this is member {member}"
    if aligned_elsewhere(run):
        return f"Held-out pairs, and of AUC and accuracy labelled texts; one run. {said}."
    return (
        f"Held-out comments and prompts, one run. {said}. Thresholds are of the calibration split."
    )


def _limits(reward: NetworkReward, which: str, run: Run | None) -> str:
    longest = context(reward.tokenizer, reward.network)
    lines = [
        "- It is an instrument of research on what alignment teaches, **not a toxicity classifier "
        "to deploy**: nobody has looked at what it does to dialects, languages or groups.",
        "- It speaks for texts like those that it was made from, and for no others.",
        f"- It reads the last {longest} tokens of a text.",
    ]
    if which == RECOVERED:
        lines.append(
            "- Demonstrations fix a reward only in part. Rewards that differ by a constant for "
            "each prompt and by a positive scale explain the same behaviour; where the aligned "
            "model was not optimal, or wrote too little, others do too."
        )
    if run:
        said = [text for text in run.warnings if not text.startswith("wandb")]
        lines += [f"- The run warns: {' '.join(text.split())}" for text in said]
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines
    )
