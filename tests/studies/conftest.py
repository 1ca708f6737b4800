"""One store for all studies of a file, so that a variation pays only for what it changes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.studies.lab import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """What a run sets for its whole process is set back, so that no other test sees it."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch:
        yield Lab(tmp_path_factory.mktemp("lab"), patch)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def smoke(lab: Lab) -> Path:
    return lab.run()
