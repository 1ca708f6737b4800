"""Solvers: from demonstrations to a recovered reward, one idea a file.

A solver is a function from a `Problem` to a reward. `SOLVERS` maps the names that conf/solver/
offers to these functions. One more, `plugin`, runs a file of the user's own, whatever its name.
"""

from collections.abc import Callable

from irl_exp.config import InputError, PluginSolver, SolverConfig
from irl_exp.models.reward_model import Reward
from irl_exp.solvers import (
    bayesian,
    choice,
    controls,
    convex,
    ensemble,
    failure_aware,
    log_ratio,
    margin,
    planning,
    released,
)
from irl_exp.solvers.plugin import Plugin
from irl_exp.solvers.problem import Problem

SOLVERS: dict[str, Callable[[Problem], Reward]] = {
    "asymmetric": margin.solve,
    "hinge": margin.solve,
    "squared_hinge": margin.solve,
    "logistic": margin.solve,
    "max_entropy_network": margin.solve,
    "released": released.solve,
    "max_entropy": choice.solve,
    "bayesian": bayesian.solve,
    "svm": convex.svm,
    "projection": convex.projection,
    "max_margin_planning": planning.solve,
    # These build on any of the others, which `solver.base` names.
    "ensemble": lambda problem: ensemble.solve(problem, SOLVERS),
    "failure_aware": lambda problem: failure_aware.solve(problem, SOLVERS),
    "failure_aware_max_entropy": lambda problem: failure_aware.solve(problem, SOLVERS),
    "log_ratio": log_ratio.solve,
    "length": controls.length,
    "perplexity": controls.perplexity,
    "membership": controls.membership,
    "untrained": controls.untrained,
    "oracle": controls.oracle,
}


def require(solver: SolverConfig, where: str) -> None:
    """InputError where recovery could not even start; `where` is the key of the configuration."""
    if isinstance(solver, PluginSolver):
        Plugin.read(solver.file).load()
    elif solver.name not in SOLVERS:
        known = ", ".join(SOLVERS)
        raise InputError(f"{where}.name={solver.name}: no such solver; expected one of {known}")
