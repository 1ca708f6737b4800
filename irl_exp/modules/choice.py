"""Which k completions of a pool the expert wrote: a likelihood that is exact for a tilted one."""

import torch
from torch import Tensor

# Stands for log 0: with an infinity there, autograd would give slopes that are no numbers.
NEVER = -1e30


def log_choice(scores: Tensor) -> Tensor:
    """log P(the first k of 2k completions are the expert's | the pool), float [n].

    scores [n, 2k] are R/beta. If the expert draws from pi_ref exp(R/beta)/Z and the others come
    from pi_ref, all independently, a set S of k is the expert's with probability proportional to
    prod_{i in S} exp(R_i/beta); the normalizer is the k-th elementary symmetric polynomial of the
    exp(R_i/beta), here by its recursion in logarithms. k = 1 is Bradley and Terry's model. Concave
    in the scores; adding a constant to a pool changes nothing.
    """
    k = scores.shape[1] // 2
    # log e_j of the completions read so far, j = 0 .. k.
    logs = torch.full((len(scores), k + 1), NEVER, dtype=scores.dtype, device=scores.device)
    logs[:, 0] = 0.0
    for score in scores.unbind(1):
        taken = logs[:, :-1] + score.unsqueeze(1)
        # torch.logaddexp would do, but its second derivatives far apart are no numbers.
        logs = torch.cat([logs[:, :1], torch.stack([logs[:, 1:], taken]).logsumexp(0)], dim=1)
    return scores[:, :k].sum(1) - logs[:, k]
