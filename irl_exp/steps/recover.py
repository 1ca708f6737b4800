"""recover: R̂ from demonstrations, or a control in its place."""

from dataclasses import asdict
from pathlib import Path

from irl_exp.config import InputError, PluginSolver, SolverConfig
from irl_exp.data.comments import Comments
from irl_exp.data.pairs import Demonstrations
from irl_exp.solvers import SOLVERS
from irl_exp.solvers.plugin import Plugin
from irl_exp.solvers.problem import Problem
from irl_exp.steps.bench import Bench
from irl_exp.steps.calibration import save_calibrated
from irl_exp.steps.pretrain import calibration_texts
from irl_exp.store import Artifact

VERSION = 3


def recover(
    bench: Bench,
    solver: SolverConfig,
    comments: Artifact,
    pairs: Artifact,
    aligned: Artifact,
    reference: Artifact,
    truth: Artifact,
    label: str = "recover",
) -> Artifact:
    """Artifact: a reward folder with threshold and unit. Only the oracle looks at `truth`."""
    plugin = Plugin.read(solver.file) if isinstance(solver, PluginSolver) else None
    facts = asdict(solver) | ({"file": plugin.digest} if plugin else {})
    seeds = bench.config.seeds
    # Where both seeds are one number, as by default, it stands for both.
    apart = {"initialization": seeds.initialization} if seeds.initialization != seeds.order else {}
    kl_coef, max_new_tokens = bench.config.rlhf.kl_coef, bench.config.dataset.max_new_tokens

    def compute(folder: Path) -> None:
        problem = Problem(
            config=solver,
            demonstrations=Demonstrations.load(pairs.path),
            reference=reference.path,
            aligned=aligned.path,
            truth=truth.path,
            kl_coef=kl_coef,
            max_new_tokens=max_new_tokens,
            trainer=bench.config.trainer,
            device=bench.device,
            initialization=seeds.initialization,
            order=seeds.order,
            folder=folder,
        )
        reward = plugin.solve(problem) if plugin else SOLVERS[solver.name](problem)
        table = Comments.load(comments.path)
        origin = {"solver": facts, "seed": seeds.order, **apart}
        try:
            save_calibrated(reward, folder, table, reference, origin)
        except InputError as error:  # it knows the reward's body and not who made it
            raise InputError(f"{label}, solver {solver.name}: {error}") from error
        if plugin:
            plugin.require_saved(reward, folder, calibration_texts(reference), problem)

    return bench.do(
        "recover",
        VERSION,
        compute,
        config={"solver": facts, "kl_coef": kl_coef, "max_new_tokens": max_new_tokens, **apart},
        inputs={
            "comments": comments,
            "pairs": pairs,
            "aligned": aligned,
            "reference": reference,
            "truth": truth,
        },
        seed=seeds.order,
        label=label,
    )
