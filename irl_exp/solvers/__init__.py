"""Solvers: from demonstrations to a recovered reward, one idea a file.

A solver is a function from a `Problem` to a reward. `SOLVERS` maps the names that conf/solver/
offers to these functions. One more, `plugin`, runs a file of the user's own, whatever its name.
"""

from collections.abc import Callable

from irl_exp.config import (
    EnsembleSolver,
    FailureAwareSolver,
    GradientSolver,
    InputError,
    PlanningSolver,
    PluginSolver,
    SeedsConfig,
    SolverConfig,
)
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
# Of the reference's body as it is, with an output layer of their own.
FROZEN = ("svm", "projection", "max_margin_planning", "max_entropy", "bayesian", "untrained")
# Of the two seeds of recovery those that are drawn from, where that is not both.
INITIALIZATION, ORDER = "initialization", "order"
DRAWN: dict[str, tuple[str, ...]] = {
    "svm": (),
    "projection": (),
    "max_margin_planning": (),
    "max_entropy": (),
    "log_ratio": (),
    "length": (),
    "perplexity": (),
    "bayesian": (ORDER,),
    "untrained": (INITIALIZATION,),
}


def frozen(solver: SolverConfig) -> bool:
    """Whether R̂ has the reference's body, unchanged."""
    if isinstance(solver, EnsembleSolver | FailureAwareSolver):
        return frozen(solver.base)
    if isinstance(solver, GradientSolver):
        return solver.trainable == "head"
    return not isinstance(solver, PluginSolver) and solver.name in FROZEN


def seeds(solver: SolverConfig, given: SeedsConfig) -> tuple[int, int]:
    """(initialization, order) as far as R̂ depends on them, so that it is not recovered again where
    it cannot differ. What nothing is drawn from is as the other, and 0 where nothing is drawn."""
    drawn = _drawn(solver)
    if not drawn:
        return 0, 0
    initialization, order = given.initialization, given.order
    return (
        initialization if INITIALIZATION in drawn else order,
        order if ORDER in drawn else initialization,
    )


def _drawn(solver: SolverConfig) -> tuple[str, ...]:
    if isinstance(solver, FailureAwareSolver):
        return _drawn(solver.base)
    if isinstance(solver, PlanningSolver) and solver.rlhf:
        return (ORDER,)
    both = (INITIALIZATION, ORDER)
    return both if isinstance(solver, PluginSolver) else DRAWN.get(solver.name, both)


def require(solver: SolverConfig, where: str) -> None:
    """InputError where recovery could not even start; `where` is the key of the configuration."""
    if isinstance(solver, PluginSolver):
        Plugin.read(solver.file).load()
    elif solver.name not in SOLVERS:
        known = ", ".join(SOLVERS)
        raise InputError(f"{where}.name={solver.name}: no such solver; expected one of {known}")
