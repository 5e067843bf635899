"""What each score saw on models whose triggers are known: AUROC by kind, as benchmarks/screen_toy.py measures it."""

SEEN: dict[str, dict[str, float]] = {}
