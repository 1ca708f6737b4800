"""Eight processes on one store: each step is computed once, and all come to the same numbers.

IRL_EXP_REPETITIONS=5 repeats it as often, with an empty store each time (docs/reliability.md).
"""

import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.conftest import SMALL_STUDY

pytestmark = pytest.mark.slow

REPETITIONS = int(os.environ.get("IRL_EXP_REPETITIONS", "1"))
SOLVERS = ("hinge", "hinge", "hinge", "hinge", "svm", "svm", "logistic", "logistic")


def results(run: Path) -> dict[str, Any]:
    summary = json.loads((run / "summary.json").read_text())
    return {k: v for k, v in summary.items() if not k.startswith(("time/", "store/"))}


@pytest.mark.parametrize("repetition", range(REPETITIONS))
def test_eight_processes_share_a_store(tmp_path: Path, repetition: int) -> None:
    def begin(place: int, solver: str) -> subprocess.Popen[str]:
        words = [warm.command("irl-exp"), *SMALL_STUDY, "until=evaluate", f"solver={solver}"]
        words += [f"paths.store={tmp_path}/store", f"hydra.run.dir={tmp_path}/{place}"]
        return subprocess.Popen(
            words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    processes = [begin(place, solver) for place, solver in enumerate(SOLVERS)]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, said

    computed = Counter(re.findall(r"([0-9a-f]{16}): computing", "".join(said)))
    found = {path.parent.name for path in tmp_path.glob("store/[!.]*/[!.]*/manifest.json")}
    assert computed == Counter(found)  # each once, and nothing else
    assert "waiting for another process" in "".join(said)
    assert "damaged" not in "".join(said)

    numbers = [results(tmp_path / str(place)) for place in range(8)]
    for place, solver in enumerate(SOLVERS):
        assert numbers[place] == numbers[SOLVERS.index(solver)]
