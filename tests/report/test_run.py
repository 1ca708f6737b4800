"""Files of a run directory, read in less time and to the same values."""

from pathlib import Path

import pytest
import yaml

from irl_exp.report.run import _yaml


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seed: 3\n",
        "model:\n  name: a\n  sizes: [1, 2]\ntags:\n- x\n- y\nseed: null\n",
        "# a comment\nseed: 1\n'quoted': 2\nseed: 3\n",
        "a: &shared {b: 1}\nc: *shared\n",  # no key by itself
        'a: "one\ntwo: three"\nb: 1\n',
        "a: |\n  one\n\n  two: 2\nb: 1\n",
        "{a: 1,\nb: 2}\n",
        "- trainer.threads=1\n- seed=2\n",
        "several\nwords\n",
        "---\na: 1\nb: 2\n",
    ],
)
def test_key_by_key_is_what_the_whole_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert _yaml(path) == yaml.safe_load(text)


def test_an_error_is_where_it_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: 1\nb: [2\nc: 3\n")
    with pytest.raises(ValueError, match=r"config\.yaml: (.|\n)*line 3"):
        _yaml(path)
