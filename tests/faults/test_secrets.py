"""Keys of wandb and tokens of the hub are in no file of a run, of the store, of a report."""

import os
import subprocess
from pathlib import Path

from tests import warm

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_OfTheEnvironmentAndOfNobodyElse",
    "HUGGING_FACE_HUB_TOKEN": "hf_OfTheOldNameThatSomeStillUseToday",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
}
# As a clone has it whose user typed the token into the address.
REMOTE = "ghp_OfTheAddressThatThisWasClonedFrom"
BROKEN = "def solve(problem):\n    raise ValueError('no reward')\n"


def test_no_file_holds_a_secret(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    for words in (
        ["init", "-q"],
        ["remote", "add", "origin", f"https://somebody:{REMOTE}@example.org/some/study.git"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    (tmp_path / "token").write_text("hf_OfTheFileThatTheHubKeeps")
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n login user\n password " + "f" * 40)
    environment = {
        **os.environ,
        **SECRETS,
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "NETRC": str(tmp_path / "netrc"),
        "HF_HUB_OFFLINE": "1",
    }
    small = (
        *("+debug=smoke", "trainer.threads=1", "dataset.size=600", "dataset.max_new_tokens=8"),
        *("demonstrations.prompts=16", "demonstrations.test_prompts=16", "evaluation.draws=10"),
        *("tracker=wandb_offline", "paths.store=store"),
    )
    for folder, more, status in (
        ("run", (), 0),
        ("broke", ("solver=plugin", "solver.file=broken.py"), 1),
        ("hub", ("model=checkpoint", "model.path=some/model"), 1),
    ):
        line = [warm.command("irl-exp"), *small, *more, f"hydra.run.dir=runs/{folder}"]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        (tmp_path / f"said-{folder}.txt").write_text(done.stdout + done.stderr)
    report = [warm.command("irl-report"), "runs", "-o", "report"]
    subprocess.run(report, cwd=tmp_path, env=environment, check=True)

    mine = {tmp_path / "token", tmp_path / "netrc", tmp_path / ".git" / "config"}
    files = {path for path in tmp_path.rglob("*") if path.is_file()} - mine
    assert any(path.suffix == ".wandb" for path in files)
    assert any(path.name == "traceback.txt" for path in files)
    secrets = [*SECRETS.values(), REMOTE, "hf_OfTheFileThatTheHubKeeps", "f" * 40]
    found = [
        (path.relative_to(tmp_path), secret)
        for path in files
        for secret in secrets
        if secret.encode() in path.read_bytes()
    ]
    assert found == []
