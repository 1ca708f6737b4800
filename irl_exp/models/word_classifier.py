"""A second opinion on toxicity: counts of words and of pairs of words, no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

# Parts of the texts, each scored by what the others teach.
FOLDS = 5


@dataclass(frozen=True)
class WordClassifier:
    """TF-IDF and logistic regression, from human labels."""

    model: Any

    @classmethod
    def fit(cls, texts: Sequence[str], labels: ArrayLike) -> "WordClassifier":
        return cls(_pipeline().fit(texts, labels))

    @staticmethod
    def cross_scores(texts: Sequence[str], labels: ArrayLike) -> NDArray[np.float64]:
        """The score [n] of each text by a classifier of other texts alone.

        The texts are cut into blocks as they stand, with like shares of both labels, so that
        comments of one prompt, which stand together, are judged together. Each label must be there
        twice.
        """
        folds = min(FOLDS, int(np.bincount(labels).min()))
        return -cross_val_predict(_pipeline(), texts, labels, cv=folds, method="decision_function")

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Log-odds of not toxic: higher = better, as everywhere."""
        return -self.model.decision_function(texts)


def _pipeline() -> Any:
    return make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(max_iter=1000, C=4.0),
    )
