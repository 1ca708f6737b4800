"""What demonstrations leave open: the rewards they do not reject, and what all of these agree on.

Rewards are linear in features, R = w . phi. With a convex loss f (minus the log-likelihood of the
demonstrations, and a ridge term if wanted), the rewards that are not rejected are

    W = {w : f(w) - min f <= slack},

the likelihood-ratio confidence set. A pair of completions with delta = phi(x) - phi(y) is
identified where w . delta has one sign on all of W, and ambiguous otherwise: then there are two
rewards that explain the demonstrations and order the pair in opposite ways.

    rewards = RewardSet.of(loss, best, slack(0.95, 1), roughness)
    numbers = identification(rewards.signs(deltas), truth)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats
from scipy.linalg import cho_factor, cho_solve, solve_triangular

Array = NDArray[np.float64]
# w [d] -> (value, gradient [d], Hessian [d, d]) of a strictly convex function.
Loss = Callable[[Array], tuple[float, Array, Array]]
# Its values [m] and gradients [m, d] at m points [m, d].
Slopes = Callable[[Array], tuple[Array, Array]]

NEWTON_STEPS = 100
# Newton decrements: of a minimum to rounding, and of one on the way to an `interval`.
EXACT = 1e-18
ENOUGH = 1e-10
# How near the loss must come to the ceiling, as a share of the slack, for an interval, which is off
# by the second order of that: about 1e-7 of its length.
NEAR = 1e-3
# Tangent planes that `intervals` lays at most for a pair, and the share of the slack that the last
# one's tilt may cost.
TANGENTS = 8
TILT = 0.1


def slack(level: float, freedom: int) -> float:
    """Half the `level` quantile of chi-squared with `freedom` degrees (Wilks 1938).

    One degree: each pair's interval covers on its own. d degrees: the set covers w, so that all
    intervals cover at once.
    """
    if not 0 < level < 1 or freedom < 1:
        raise ValueError(f"expected 0 < level < 1 and freedom >= 1, got {level} and {freedom}")
    return float(stats.chi2.ppf(level, freedom)) / 2


def minimum(loss: Loss, start: Array) -> Array:
    """The minimum [d] of a strictly convex loss. ValueError where Newton's method finds none."""
    return _newton(loss, start, EXACT)[0]


def _newton(loss: Loss, start: Array, near: float) -> tuple[Array, float, Array, float]:
    """Newton's method with halved steps: (w, value, Hessian, decrement <= near).

    The decrement is the squared distance that is left, in units of the curvature; near the minimum
    the value is above it by half of that.
    """
    w, (value, gradient, hessian) = start, loss(start)
    for _ in range(NEWTON_STEPS):
        step = -_solve(hessian, gradient)
        decrement = float(-gradient @ step)
        if decrement <= near:
            return w, value, hessian, decrement
        size, rounding = 1.0, 1e-13 * (1 + abs(value))
        while True:
            there = loss(w + size * step)
            if there[0] <= value - size * decrement / 4 + rounding:
                break
            size /= 2
        w, (value, gradient, hessian) = w + size * step, there
    raise ValueError(f"loss: no minimum within {NEWTON_STEPS} Newton steps; is it strictly convex?")


@dataclass(frozen=True)
class RewardSet:
    """W = {w : f(w) <= f(best) + slack}, with what is known of f at its minimum `best` [d].

    `roughness` is a number M such that |f'''| <= M |u|_H f'' in every direction u, everywhere, with
    |u|_H^2 = u . H u and H the Hessian at `best`. It bounds how fast curvature fades away from the
    minimum (generalized self-concordance; Bach 2010, EJS 4). 0 for a quadratic.
    """

    loss: Loss
    best: Array
    slack: float
    roughness: float
    value: float
    gradient: Array
    hessian: Array
    slopes: Slopes

    @classmethod
    def of(
        cls,
        loss: Loss,
        best: Array,
        slack: float,
        roughness: float,
        slopes: Slopes | None = None,
    ) -> "RewardSet":
        """Where `best` misses the minimum, W becomes too large by that, and never too small.

        `slopes` is the loss at many points at once, where that is faster than one by one.
        """
        if slack < 0 or roughness < 0:
            raise ValueError(f"expected slack, roughness >= 0, got {slack} and {roughness}")
        slopes = slopes or _one_by_one(loss)
        return cls(loss, best, slack, roughness, *loss(best), slopes)

    def bounds(self, deltas: ArrayLike) -> tuple[Array, Array]:
        """(low, high) [n] between which w . delta [n, d] surely lies for every w in W: cheap.

        Along a ray of unit |u|_H from `best`, f'' >= exp(-M s), hence
        f(best + s u) - f(best) >= -e s + (exp(-M s) + M s - 1) / M^2, with e = |gradient|_{1/H}.
        No w of W is therefore farther than the s at which that reaches the slack: W lies within an
        ellipsoid, on which w . delta is within s |delta|_{1/H} of best . delta.
        """
        differences = self._differences(deltas)
        root = solve_triangular(np.linalg.cholesky(self.hessian), differences.T, lower=True)
        middle = differences @ self.best
        half = self._radius() * np.linalg.norm(root, axis=0) * (1 + 1e-9)  # for rounding
        return middle - half, middle + half

    def _radius(self) -> float:
        error = float(self.gradient @ _solve(self.hessian, self.gradient)) ** 0.5
        rough = max(self.roughness, 1e-9)
        if error * rough >= 1:
            return float("inf")  # too far from the minimum for anything to be sure

        def excess(s: float) -> float:
            return _growth(rough * s) / rough**2 - error * s - self.slack

        high = 1.0
        while excess(high) <= 0:
            high *= 2
        return float(optimize.brentq(excess, 0.0, high, xtol=1e-12 * high)) if self.slack else 0.0

    def intervals(self, deltas: ArrayLike) -> tuple[Array, Array]:
        """(low, high) [n] as sure as those of `bounds`, and much nearer to the exact `interval`:
        with the slack of one degree off by some hundredths of its length, and all at once."""
        differences = self._differences(deltas)
        return -self._below_tangents(-differences), self._below_tangents(differences)

    def _below_tangents(self, differences: Array) -> Array:
        """Bounds [n] from above of w . delta over W, by tangent planes of f.

        f lies above its tangent plane at any v, of gradient g: g . (w - v) <= ceiling - f(v) for
        all w of W. With g = t delta + e and r the radius of W around `best`, hence
        t w . delta <= g . v + ceiling - f(v) - e . best + r |e|_{1/H}. That is exact for the v at
        which w . delta is largest, where e = 0 and f(v) is the ceiling; for a quadratic
        best + t / H delta, and near it otherwise, from where steps by 1/H take e to 0.
        """
        _, above = self.bounds(differences)
        radius = self._radius()
        if not len(differences) or self.slack == 0 or not np.isfinite(radius):
            return above
        directions = _solve(self.hessian, differences.T).T
        spread = np.einsum("nd,nd->n", differences, directions)
        t = np.sqrt(2 * self.slack / np.where(spread > 0, spread, 1.0))
        points, tilted = self.best + t[:, None] * directions, np.arange(len(differences))
        for _ in range(TANGENTS):
            some = points[tilted]
            values, gradients = self.slopes(some)
            left = gradients - t[tilted, None] * differences[tilted]
            step = _solve(self.hessian, left.T).T
            tilt = radius * np.sqrt(np.einsum("nd,nd->n", left, step))
            height = np.einsum("nd,nd->n", gradients, some) - values
            bound = (height + self.value + self.slack - left @ self.best + tilt) / t[tilted]
            bound += 1e-9 * np.abs(bound)  # for rounding
            above[tilted] = np.fmin(above[tilted], bound)
            points[tilted] -= step
            tilted = tilted[tilt > TILT * self.slack]
            if not len(tilted):
                break
        return above

    def interval(self, delta: ArrayLike) -> tuple[float, float]:
        """The smallest and largest w . delta [d] over W: exact, by two convex problems."""
        (difference,) = self._differences(np.asarray(delta, dtype=np.float64)[None])
        *_, (low, _) = self._approach(-difference)
        *_, (high, _) = self._approach(difference)
        return -low, high

    def signs(self, deltas: ArrayLike) -> NDArray[np.int8]:
        """The sign that w . delta [n, d] has on all of W, int8 [n]: 1, -1, or 0 for ambiguous.

        Exact. Most pairs are settled by `bounds`, by a w of W for which w . delta = 0, or by a
        tangent plane; for the rest a convex problem is solved as far as it takes to tell.
        """
        differences = self._differences(deltas)
        low, high = self.bounds(differences)
        signs = (low > 0).astype(np.int8) - (high < 0).astype(np.int8)
        margins = differences @ self.best
        open_pairs = np.flatnonzero((signs == 0) & (margins != 0))
        if not len(open_pairs):
            return signs
        directions = _solve(self.hessian, differences[open_pairs].T).T
        spread = np.einsum("nd,nd->n", differences[open_pairs], directions)
        ties = self.best - (margins[open_pairs] / spread)[:, None] * directions
        open_pairs = open_pairs[self.slopes(ties)[0] > self.value + self.slack]
        toward = np.sign(margins[open_pairs])[:, None] * differences[open_pairs]
        settled = self._below_tangents(-toward) < 0
        for i, delta, sure in zip(open_pairs, toward, settled, strict=True):
            if sure or self._agrees(delta):
                signs[i] = np.sign(margins[i])
        return signs

    def _agrees(self, delta: Array) -> bool:
        """Whether w . delta > 0 on all of W."""
        above = float("inf")
        for above, below in self._approach(-delta):
            if above < 0 or below >= 0:
                break
        return above < 0

    def _approach(self, delta: Array) -> Iterator[tuple[float, float]]:
        """Bounds (above, below) of the maximum of w . delta over W; the last ones meet.

        For any t > 0, with w(t) the minimum of f(w) - t w . delta, weak duality says that it is at
        most w(t) . delta + (ceiling - f(w(t))) / t, ceiling = f(best) + slack; with equality at the
        t for which f(w(t)) is the ceiling. That t is found by Newton's method on the square root of
        f(w(t)) - f(best), which is nearly linear in t, and would be exactly so for a quadratic.
        """
        direction = _solve(self.hessian, delta)
        spread = float(delta @ direction)
        if self.slack == 0 or spread == 0:
            yield (float(delta @ self.best),) * 2
            return
        t = (2 * self.slack / spread) ** 0.5
        w, low, high = self.best + t * direction, 0.0, float("inf")
        for _ in range(NEWTON_STEPS):
            w, value, hessian, decrement = _newton(_tilted(self.loss, t * delta), w, ENOUGH)
            at = float(delta @ w)
            climbed = value + t * at - self.value
            above = at + (self.slack - climbed + decrement) / t
            yield above, at if climbed <= self.slack else float("-inf")
            if abs(climbed - self.slack) <= NEAR * self.slack:
                return
            low, high = (t, high) if climbed < self.slack else (low, t)
            direction, climbed = _solve(hessian, delta), max(climbed, 1e-300)
            slope = t * float(delta @ direction) / (2 * climbed**0.5)
            proposed = t + (self.slack**0.5 - climbed**0.5) / slope
            if not low < proposed < high:
                proposed = 2 * t if high == float("inf") else (low + high) / 2
            w, t = w + (proposed - t) * direction, proposed
        raise ValueError("loss: its ceiling is not reached; is it strictly convex?")

    def _differences(self, deltas: ArrayLike) -> Array:
        array = np.asarray(deltas, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != self.best.size or not np.all(np.isfinite(array)):
            raise ValueError(f"deltas: expected finite [n, {self.best.size}], got {array.shape}")
        return array


def identification(signs: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """How many pairs are identified, and how many of these rightly.

    Args:
        signs: what `RewardSet.signs` says of each pair [n].
        truth: R*(x) - R*(y) of the same pairs [n].

    Returns:
        `identified_fraction` and `ambiguous_fraction`, which sum to 1, and `identified_accuracy`:
        the share of the identified pairs with the sign of R*, a tie in R* counting one half; NaN
        where none is identified.

    Raises:
        ValueError: for empty arrays or unequal lengths, or a true difference that is not finite.
    """
    found, true = np.asarray(signs), np.asarray(truth, dtype=np.float64)
    if found.ndim != 1 or found.size == 0 or found.shape != true.shape:
        raise ValueError(f"expected signs and truth [n], got {found.shape} and {true.shape}")
    if not np.all(np.isfinite(true)):
        raise ValueError("truth: expected finite differences")
    identified = found != 0
    right = (1 + np.sign(found) * np.sign(true)) / 2
    share = float(np.mean(identified))
    return {
        "identified_fraction": share,
        "identified_accuracy": float(np.mean(right[identified])) if share else float("nan"),
        "ambiguous_fraction": 1 - share,
    }


def _one_by_one(loss: Loss) -> Slopes:
    def slopes(points: Array) -> tuple[Array, Array]:
        found = [loss(point) for point in points]
        return np.array([value for value, *_ in found]), np.array([slope for _, slope, _ in found])

    return slopes


def _tilted(loss: Loss, pull: Array) -> Loss:
    def tilted(w: Array) -> tuple[float, Array, Array]:
        value, gradient, hessian = loss(w)
        return value - float(pull @ w), gradient - pull, hessian

    return tilted


def _solve(hessian: Array, vector: Array) -> Array:
    try:
        solution: Array = cho_solve(cho_factor(hessian), vector)
    except np.linalg.LinAlgError:
        raise ValueError("loss: its Hessian is singular; expected a strictly convex loss") from None
    return solution


def _growth(x: float) -> float:
    """exp(-x) + x - 1, also for small x."""
    return x * x / 2 - x**3 / 6 if x < 1e-4 else float(np.expm1(-x)) + x
