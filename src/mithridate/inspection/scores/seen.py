"""What each score saw on models whose triggers are known: AUROC by kind, as benchmarks/screen_toy.py measures it."""

SEEN: dict[str, dict[str, float]] = {
    "scale-up": {"patch": 0.46, "blended": 0.34, "sine": 0.86},
    "bdetclip": {"patch": 0.48, "blended": 0.66, "sine": 0.57},
    "strip": {"patch": 0.47, "blended": 0.37, "sine": 0.16},
    "occlusion": {"patch": 0.70, "blended": 0.23, "sine": 0.19},
    "masking": {"patch": 0.48, "blended": 0.11, "sine": 0.55},
}
