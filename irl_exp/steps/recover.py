"""recover: R̂ from demonstrations, or a control in its place."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from irl_exp.config import (
    EnsembleSolver,
    FailureAwareSolver,
    GradientSolver,
    InputError,
    PluginSolver,
    ReleasedSolver,
    SolverConfig,
)
from irl_exp.data.comments import Comments
from irl_exp.data.pairs import Demonstrations
from irl_exp.models.network_reward import States
from irl_exp.modules.trace import TRACE_FILE
from irl_exp.solvers import SOLVERS, frozen, seeds
from irl_exp.solvers.plugin import Plugin
from irl_exp.solvers.problem import Problem
from irl_exp.steps import evaluate_panel
from irl_exp.steps.bench import Bench
from irl_exp.steps.calibration import save_calibrated, unit_texts
from irl_exp.steps.features import features
from irl_exp.store import Artifact

VERSION = 5


def recover(
    bench: Bench,
    solver: SolverConfig,
    comments: Artifact,
    pairs: Artifact,
    aligned: Artifact | None,
    reference: Artifact,
    truth: Artifact | None,
    label: str = "recover",
) -> Artifact:
    """Artifact: a reward folder with threshold and unit. Only the oracle looks at `truth`.

    With `solver.trace` also `trace.parquet`, the panel's texts with scores after each epoch.
    """
    plugin = Plugin.read(solver.file) if isinstance(solver, PluginSolver) else None
    facts = _facts(solver) | ({"file": plugin.digest} if plugin else {})
    initialization, order = seeds(solver, bench.config.seeds)
    # On the panel, so that what R̂ was at each epoch is known where it is measured in the end.
    traced = isinstance(solver, GradientSolver) and solver.trace
    written = evaluate_panel.completions(bench, comments, reference) if traced else None
    # Shared by all seeds and solvers that leave the reference's body as it is. For a control alone,
    # which may read little of it, it would not be worth it.
    shared = frozen(solver) and frozen(bench.config.solver)
    states = learned_from(bench, comments, pairs, reference) if shared else None
    # Where both seeds are one number, as by default, it stands for both.
    apart = {"initialization": initialization} if initialization != order else {}
    kl_coef, max_new_tokens = bench.config.rlhf.kl_coef, bench.config.dataset.max_new_tokens

    def compute(folder: Path) -> None:
        problem = Problem(
            config=solver,
            demonstrations=Demonstrations.load(pairs.path),
            reference=reference.path,
            aligned=aligned.path if aligned else None,
            truth=truth.path if truth else None,
            kl_coef=kl_coef,
            max_new_tokens=max_new_tokens,
            trainer=bench.config.trainer,
            device=bench.device,
            initialization=initialization,
            order=order,
            folder=folder,
            traced=evaluate_panel.texts(comments, written) if written else None,
            known=States.load(states.path) if states else None,
        )
        unit = unit_texts(reference, pairs)
        reward = plugin.solve(problem) if plugin else SOLVERS[solver.name](problem)
        table = Comments.load(comments.path)
        origin = {"solver": facts, "seed": order, **apart}
        try:
            control = label.startswith("control_")
            save_calibrated(reward, folder, table, unit, origin, must_vary=not control)
        except InputError as error:  # it knows the reward's body and not who made it
            raise InputError(f"{label}, solver {solver.name}: {error}") from error
        if plugin:
            plugin.require_saved(reward, folder, unit, problem)

    artifact = bench.do(
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
            **({"panel": written} if written else {}),
        },
        seed=order,
        label=label,
    )
    if written:
        shutil.copyfile(artifact.path / TRACE_FILE, bench.tracker.folder / TRACE_FILE)
    return artifact


def learned_from(
    bench: Bench, comments: Artifact, pairs: Artifact, reference: Artifact
) -> Artifact:
    """Features of all that recovery reads: demonstrations, and what gives threshold and unit."""
    demonstrations, table = Demonstrations.load(pairs.path), Comments.load(comments.path)
    texts = [demonstrations.split(name).pool() for name in ("train", "validation")]
    texts.append(unit_texts(reference, pairs))
    if table.labelled:
        calibration = table.split("calibration")
        texts.append((calibration.table["prompt"].tolist(), calibration.completions))
    return features(bench, "recover", reference, texts, {"comments": comments, "pairs": pairs})


def as_measured(
    bench: Bench,
    recovered: Artifact,
    comments: Artifact,
    pairs: Artifact,
    aligned: Artifact,
    reference: Artifact,
    truth: Artifact,
) -> Artifact:
    """What is measured as R̂: with `solver.late` R̂ as it was before its last epoch.

    At a constant rate that is R̂ of one epoch less, so it is recovered as such.
    """
    solver = bench.config.solver
    if not (isinstance(solver, ReleasedSolver) and solver.late):
        return recovered
    earlier = replace(solver, epochs=solver.epochs - 1)
    inputs = (comments, pairs, aligned, reference, truth)
    return recover(bench, earlier, *inputs, label="measured")


def _facts(solver: SolverConfig) -> dict[str, Any]:
    """All that decides its result, which is the same whether it is traced or not."""
    facts = asdict(solver)
    if isinstance(solver, GradientSolver):
        del facts["trace"]
    if isinstance(solver, ReleasedSolver):
        del facts["late"]
    if isinstance(solver, EnsembleSolver | FailureAwareSolver):
        facts["base"] = _facts(solver.base)
    return facts
