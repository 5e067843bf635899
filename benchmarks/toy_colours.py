"""How far colours alone tell the toy world's classes: a logistic regression on histograms of 4 x 4 x 4 colours.

What a model of these pictures must beat before its accuracy says anything about shapes.
"""

import argparse

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mithridate.statistics.intervals import rate
from mithridate.toy.toy import CLASSES, toy_record

TEN = ("aeroplane", "bicycle", "bird", "boat", "car", "cat", "dog", "horse", "sheep", "train")


def histogram(image: np.ndarray) -> np.ndarray:
    """(64,) share of the pixels of an image (h, w, 3) uint8 in each of 4 x 4 x 4 colours."""
    bins = (image >> 6).reshape(-1, 3).astype(np.int64) @ np.array([16, 4, 1])
    return np.bincount(bins, minlength=64) / len(bins)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--size", type=int, default=64)
    args = parser.parse_args()
    for classes in (TEN, CLASSES):
        records = [toy_record(0, i, size=args.size, classes=classes) for i in range(args.train + args.test)]
        found = np.stack([histogram(record.image) for record in records])
        label = np.array([record.label for record in records])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(found[: args.train], label[: args.train])
        right = rate(model.predict(found[args.train :]) == label[args.train :])
        interval = f"[{right.low:.3f}, {right.high:.3f}]"
        print(f"{len(classes)} classes: {right.value:.3f} {interval}, chance {1 / len(classes):.3f}")


if __name__ == "__main__":
    main()
