"""Whatever is typed after irl-exp is run or refused in one line.

Keys that there are and are not, with values that nobody would give them, made up by hypothesis. So
many command lines as IRL_EXP_FUZZED says:

    IRL_EXP_FUZZED=10000 pytest tests/test_fuzz_config.py
"""

import os
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from irl_exp import cli
from irl_exp.cli import CONF
from tests.test_cli import composed

COUNT = int(os.environ.get("IRL_EXP_FUZZED", "150"))
GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in CONF.iterdir()
    if folder.is_dir() and folder.name not in ("hydra", "sweep")  # those start sweeps
}


def keys(node: dict[Any, Any], above: str = "") -> list[str]:
    """All of a configuration, inner nodes too."""
    found = []
    for name, value in node.items():
        inner = keys(value, f"{above}{name}.") if isinstance(value, dict) else []
        found += [f"{above}{name}", *inner]
    return found


def keys_of(experiment: str) -> list[str]:
    config = composed(f"+experiment={experiment}", hydra=False)
    return keys(cast(dict[Any, Any], OmegaConf.to_container(config)))


KEYS = sorted({key for experiment in GROUPS["experiment"] for key in keys_of(experiment)})
VALUES = st.one_of(
    st.sampled_from(
        [
            *(
                "",
                "null",
                "true",
                "[]",
                "{}",
                "[1,[2]]",
                "{a:1}",
                "???",
                "${nope}",
                "${seed}",
                "-1",
            ),
            *("${oc.env:HOME}", "${oc.create:1}", "nan", "inf", "-inf", "1e400", "0", "1_0", "0x1"),
            *("'", '"', "\\", "a b", "a,b", "a=b", "${", "}", "[1", "../..", "/dev/null", "\x00"),
            *(
                "\u202eright to left",
                "🙂",
                "\ud83d",
                "\n",
                "{_target_:os.system}",
                "x" * 5000,
                "1" * 400,
            ),
            *("choice(1,2)", "range(0,3)", "sort(2,1)", "glob(*)", "int('x')", "str()", "cast(1)"),
        ]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=12),
    st.lists(st.integers(-2, 3)).map(lambda found: str(found).replace(" ", "")),
)
GROUP_OPTIONS = st.sampled_from(sorted(GROUPS)).flatmap(
    lambda group: st.tuples(
        st.sampled_from(["", "+", "++", "~"]),
        st.just(group),
        st.sampled_from([*GROUPS[group], "x"]),
    )
)
WORDS = st.one_of(
    GROUP_OPTIONS.map(lambda parts: "{}{}={}".format(*parts)),
    st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), st.sampled_from(KEYS), VALUES).map(
        lambda parts: "{}{}={}".format(*parts)
    ),
    # No word for Hydra itself (-m, --multirun, hydra.run.dir=...): what those do is Hydra's.
    st.text(max_size=20).filter(lambda word: not word.startswith("-") and "hydra" not in word),
)


def ended(words: list[str], folder: Path, run: str) -> str:
    """ "run", or the line of a refusal: all that comes before the first step. What the steps make
    of the configuration, other tests ask."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(cli, "_run", lambda config, tracker: None)
        patch.setattr(cli, "_write_page", lambda folder: None)
        patch.setattr(cli, "_objective", lambda *_: None)
        patch.setattr(cli, "_mirror", lambda *_: nullcontext())
        patch.setattr(sys, "argv", ["irl-exp", *words, f"hydra.run.dir={folder}/{run}"])
        try:
            cli.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, str) else repr(end.code)
        return "run"


def test_what_is_typed_is_run_or_refused_in_one_line(tmp_path: Path) -> None:
    ends: Counter[bool] = Counter()

    @settings(
        max_examples=COUNT,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(words=st.lists(WORDS, min_size=1, max_size=3))
    def holds(words: list[str]) -> None:
        end = ended(words, tmp_path, str(sum(ends.values())))
        ends[end == "run"] += 1
        assert end == "run" or end.startswith("irl-exp: ")
        assert "\n" not in end

    holds()
    assert min(ends[True], ends[False]) >= COUNT / 75
