"""features: what the reference's body makes of texts, once for every R̂ that leaves it as it is.

Solvers on frozen features, and heads that train alone, so read each text once, whatever their
seeds and options; and of what they give, scores are a product with these features.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from irl_exp.models.network_reward import States, encode, from_body
from irl_exp.steps.bench import Bench
from irl_exp.store import Artifact

VERSION = 1

Texts = tuple[list[str], list[str]]


def features(
    bench: Bench,
    label: str,
    reference: Artifact,
    texts: Sequence[Texts],
    inputs: Mapping[str, Artifact],
) -> Artifact:
    """Artifact: `states.safetensors`, the body's last state of each of these texts.

    `inputs` are what the texts come from, and decide them together with the label.
    """

    def compute(folder: Path) -> None:
        batch = bench.config.trainer.score_batch_size
        body = from_body(reference.path, torch.Generator(), batch)
        body.network.eval().to(bench.device)  # type: ignore[arg-type]
        encoded = (encode(body.tokenizer, body.network, *some) for some in texts)
        rows = list(dict.fromkeys(tuple(row) for some in encoded for row in some))
        places = {row: place for place, row in enumerate(rows)}
        States(places, body.states(rows, batch)).save(folder)

    return bench.do(
        "features",
        VERSION,
        compute,
        config={"of": label},
        inputs={"reference": reference, **inputs},
        seed=0,
        label=f"features_{label}",
    )
