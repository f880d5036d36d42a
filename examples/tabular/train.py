"""Two classifiers of breast tumors, as their owners would save them, and rows that neither was trained on.

python examples/tabular/train.py [FOLDER] writes sklearn.skops, xgboost.json and test.npz beside the threat models, or
into FOLDER. Nothing is downloaded: the data come with scikit-learn.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import skops.io
import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def train(folder: Path) -> None:
    """Fit both on 60 % of the rows and save them; 0 is malignant and 1 benign, as in the data."""
    x, y = load_breast_cancer(return_X_y=True)
    seen, unseen, seen_y, unseen_y = train_test_split(x, y, test_size=0.4, stratify=y, random_state=0)

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    skops.io.dump(pipeline.fit(seen, seen_y), folder / "sklearn.skops")

    trees = xgboost.XGBClassifier(n_estimators=60, max_depth=3, learning_rate=0.2, n_jobs=1, random_state=0)
    trees.fit(seen, seen_y).save_model(folder / "xgboost.json")

    np.savez_compressed(folder / "test.npz", x=unseen, y=unseen_y)


if __name__ == "__main__":
    train(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
