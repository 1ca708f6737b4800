"""irl-export: a saved reward as a plain Hugging Face folder that says what it is.

The folder is an AutoModelForSequenceClassification with one output, its tokenizer, a model card,
and reward.json, by which irl-score and load_reward know its threshold and unit.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from irl_exp import full_disk
from irl_exp.config import InputError
from irl_exp.finished_run import REWARDS, Run
from irl_exp.store import require_sound

if TYPE_CHECKING:
    from irl_exp.models.network_reward import NetworkReward
    from irl_exp.models.reward_model import Facts

REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
CARD_FILE = "README.md"

# Rewards that are no single network, and what their owner can do instead.
OTHERS = {
    "ensemble": "each of its members is: expected --member 0 or another number",
    "planted": "the reward without its planted terms is: export {folder}/base",
    "log_ratio": "it is two policies, in {folder}/aligned and {folder}/reference; "
    "irl-score reads it as it is",
    "likelihood": "it is a policy, in {folder}/reference; irl-score reads it as it is",
    "length": "it counts words; irl-score reads it as it is",
    "closed_form": "it is a rule of the embedded data; irl-score reads it as it is",
}


def main() -> None:
    """Console script: the folder that was written, or one line that says what is wrong."""
    options = parse()
    try:
        folder = export(options.source, options.output, options.reward, options.member)
        print(f"exported: {folder}")
        if options.push_to_hub:
            print(f"pushed: {push(folder, options.push_to_hub, options.private)}")
    except (InputError, OSError) as error:
        sys.exit(f"irl-export: {error}")
    except KeyboardInterrupt:
        sys.exit("irl-export: interrupted")


def parse() -> argparse.Namespace:
    """What was typed, as far as it can be known to be wrong before anything is loaded."""
    parser = argparse.ArgumentParser(
        prog="irl-export",
        description="Write a saved reward as a plain Hugging Face folder with a model card.",
    )
    parser.add_argument(
        "source",
        metavar="RUN_OR_REWARD",
        type=Path,
        help="the directory of a run, whose numbers then stand in the card; or a reward folder of "
        "the store",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        type=Path,
        required=True,
        help="where to write: a new or an empty folder",
    )
    parser.add_argument(
        "--reward", choices=REWARDS, help="which reward of the run (default: recovered)"
    )
    parser.add_argument(
        "--member",
        metavar="N",
        type=int,
        help="of an ensemble, which is no single network, this member, from 0",
    )
    parser.add_argument(
        "--push-to-hub",
        metavar="ORG/NAME",
        help="then upload it to this repository of the Hugging Face hub, which is made if there is "
        "none (HF_TOKEN, or `hf auth login`)",
    )
    parser.add_argument("--private", action="store_true", help="make that repository private")
    options = parser.parse_args()
    if options.private and not options.push_to_hub:
        sys.exit("irl-export: --private: expected --push-to-hub beside it")
    if options.push_to_hub and not REPOSITORY.fullmatch(options.push_to_hub):
        sys.exit(f"irl-export: --push-to-hub={options.push_to_hub}: expected ORG/NAME")
    return options


def export(source: Path, output: Path, which: str | None = None, member: int | None = None) -> Path:
    """Write the reward of a run, or the one in a reward folder, to `output`, whole or not at all.

    Args:
        source: a run directory, or a reward folder of the store.
        output: a new or an empty folder.
        which: of a run, "recovered" (by default) or "ground_truth".
        member: of an ensemble, this one, from 0.

    Raises:
        InputError: there is no such reward, it is no single network, `output` holds something, or
            its disk is full.
    """
    folder, run, which = _find(source, which)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(f"{output}: exists already and is not an empty folder; expected a new one")
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output.parent}: no such folder, to write {output.name} in")
    # What is heavy, once there is something to do.
    from transformers.utils import logging

    from irl_exp.model_card import card
    from irl_exp.models.network_reward import load_network_reward
    from irl_exp.models.reward_model import Facts

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    require_sound(folder)
    if member is not None:
        folder = _member(folder, member)
    facts = Facts.load(folder)
    if facts.kind != "network":
        instead = OTHERS.get(facts.kind, "irl-score reads it as it is").format(folder=folder)
        raise InputError(f"{folder}: a reward of kind {facts.kind} is no single network; {instead}")
    reward = load_network_reward(folder)
    place = output.absolute()
    part = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        with full_disk.named(place.parent):
            _save(reward, facts, part)
            text = card(reward, facts, which, run, name=place.name, member=member)
            (part / CARD_FILE).write_text(text, encoding="utf-8")
        part.chmod(0o777 & ~_umask())
        os.rename(part, output)  # over an empty folder, and over nothing else
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return output


def _find(source: Path, which: str | None) -> tuple[Path, Run | None, str | None]:
    """The reward's folder; the run, if it is of one; and which of its rewards it is."""
    if (source / "reward.json").is_file():
        if which:
            raise InputError(f"--reward={which}: {source} is one reward; expected a run directory")
        return source, None, None
    if not (source / "status.json").is_file():
        raise InputError(f"{source}: expected the directory of a run, or a saved reward")
    run = Run.read(source)
    which = which or "recovered"
    folder: Path | None = getattr(run, which)
    if folder is None:
        raise InputError(f"{source}: its run has no {which} reward")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; the store had the {which} reward of {source}")
    return folder, run, which


def _member(folder: Path, number: int) -> Path:
    """The folder of one member of an ensemble."""
    from irl_exp.models.reward_kinds import MEMBERS_FOLDER
    from irl_exp.models.reward_model import Facts

    count = int(Facts.load(folder).extra.get("members", 0))
    if not 0 <= number < count:
        there = f"members 0 to {count - 1}" if count else "no members"
        raise InputError(f"--member={number}: {folder} has {there}; expected one of an ensemble")
    return folder / MEMBERS_FOLDER / str(number)


def _save(reward: "NetworkReward", facts: "Facts", folder: Path) -> None:
    """Set so that other programs read texts as we do: their end if they are too long, padded after
    it, and names of special tokens as text."""
    from irl_exp.models.network_reward import context

    config, tokenizer = reward.network.config, reward.tokenizer
    config.id2label, config.label2id = {0: "reward"}, {"reward": 0}
    config.problem_type = "regression"  # pipelines then leave the score as it is
    settings = {
        "padding_side": "right",
        "truncation_side": "left",
        "model_max_length": context(tokenizer, reward.network),
        "split_special_tokens": True,
    }
    for name, value in settings.items():
        setattr(tokenizer, name, value)
    tokenizer.init_kwargs |= settings  # what is saved
    reward.save(folder)
    facts.save(folder)


def _umask() -> int:
    """Of this process: a temporary folder is its owner's alone, what is exported need not be."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def push(folder: Path, repository: str, private: bool = False) -> str:
    """Upload an exported folder as one commit; the address of the repository.

    Raises InputError, in one line, whatever the network or the hub says.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    where = f"--push-to-hub={repository}"
    try:
        hub = HfApi()
        made = hub.create_repo(repository, private=private or None, exist_ok=True)
        hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Reward by irl_exp"
        )
        return str(made)
    except Exception as error:  # what a network can raise has no common base
        said = (" ".join(str(error).split()) or type(error).__name__)[:300]
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403)
        access = "; set HF_TOKEN to a token that may write, or `hf auth login`" * refused
        raise InputError(f"{where}: {said}{access}; the folder is at {folder}") from error


if __name__ == "__main__":
    main()
