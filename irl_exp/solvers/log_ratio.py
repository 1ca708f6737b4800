"""The closed form: R* = beta log(pi_E/pi_ref) up to a constant per prompt, if RLHF reached its
optimum (Rafailov et al. 2023, arXiv 2305.18290). Needs both policies' weights and no training."""

from irl_exp.models import language_model
from irl_exp.models.reward_kinds import LogRatioReward
from irl_exp.solvers.problem import Problem


def solve(problem: Problem) -> LogRatioReward:
    assert problem.aligned is not None  # validation.not_applicable says so before
    aligned, reference = (
        language_model.load(folder) for folder in (problem.aligned, problem.reference)
    )
    for model in (aligned, reference):
        model.network.to(problem.device)  # type: ignore[arg-type]
    batch = problem.trainer.score_batch_size
    return LogRatioReward(aligned, reference, problem.kl_coef, problem.max_new_tokens, batch)
