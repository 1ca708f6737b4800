"""A second opinion on toxicity: counts of words and of pairs of words, no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


@dataclass(frozen=True)
class WordClassifier:
    """TF-IDF and logistic regression, from human labels."""

    model: Any

    @classmethod
    def fit(cls, texts: Sequence[str], labels: ArrayLike) -> "WordClassifier":
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            LogisticRegression(max_iter=1000, C=4.0),
        )
        return cls(model.fit(texts, labels))

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Log-odds of not toxic: higher = better, as everywhere."""
        return -self.model.decision_function(texts)
