"""Names of what is measured, and of what is ranked: the one place where they are spelt."""

# --- metrics: the column `metric` of the long table --------------------------------------------------

HITS = (1, 5, 10, 20, 30, 50)  # K of an attack's Hit@K
RECALLS = (1, 5, 10)  # K of Recall@K, and of what a paired comparison looks at
PRECISION_AT = 10


def hit(k: int) -> str:
    """Share of queries with a target among the first K."""
    return f"Hit@{k}"


def recall_of_texts(k: int) -> str:
    """Share of images with an own caption among the first K of all captions."""
    return f"TR@{k}"


def recall_of_images(k: int) -> str:
    """Share of captions whose image is among the first K of all images."""
    return f"IR@{k}"


MIN_RANK = "MinRank"  # mean 0-based rank of the best target
MEAN_RANK = "mean rank"  # mean 0-based rank of the own caption or image
MEDIAN_RANK, LOWEST_RANK, HIGHEST_RANK = "median rank", "lowest rank", "highest rank"  # of the best target
PRECISION = f"Precision@{PRECISION_AT}"
ASR = "ASR"  # share of triggered images of other classes that are taken for the target
PSR = "PSR"  # share of single images that are taken for their adversarial class
Z_SCORE = "z-score"  # how far a trigger draws images together
ZERO_SHOT = "zero-shot"  # accuracy on untouched test images, classified by prompts
PROBE_ACCURACY, PROBE_ASR, PROBE_PSR = "probe accuracy", "probe ASR", "probe PSR"  # classified by a linear probe
SHIFT_IMAGE, SHIFT_TEXT = "shift image", "shift text"  # mean cosine distance from the reference model, same item
CKA_IMAGE, CKA_TEXT = "CKA image", "CKA text"  # linear CKA with the reference model
RECALL_AT = {"recall at 0.1 %": 0.001, "recall at 1 %": 0.01, "recall at 10 %": 0.1}
"""Share of the poisoned pairs among so many of a ranking of all pairs: names, and the shares of all pairs."""
COSINE_DISTANCE = "cosine distance"  # of an image and its caption

# --- groups: the column `group` ----------------------------------------------------------------------

ALL = "all"
OTHER_CLASSES = "other classes"  # of none that a goal names
RANDOM_CAPTIONS = "random captions"  # the control: captions of other classes, in place of the goal's
UNTOUCHED = "untouched"  # the same images or captions without the trigger
TARGET_IMAGES = "target images"  # queries are the target images, ranked are captions

# --- goals that are measured together: the column `goal` ---------------------------------------------

SINGLE_IMAGES = "single images"  # every `ImageToClass` of an attack: a target image is one unit

# --- tasks: what was ranked for each query (`UnitRanks.task`) ----------------------------------------

ATTACK = "attack"  # images for captions of the source class; wanted: target images
CONTROL = "random-captions"  # images for captions of other classes; wanted: the same
ATTACK_IMAGES = "attack-image-to-text"  # captions for target images; wanted: captions of the source class
TEXT_TRIGGER = "text-trigger"  # images for captions with the phrase; wanted: images of the target class
BACKDOOR = "backdoor"  # classes for triggered images; wanted: the target class
TARGETED = "targeted"  # classes for single images; wanted: the adversarial class of each
CAPTIONS = "captions"  # captions for triggered or single images; wanted: those of the class wanted
PROBE = "probe"  # classes for triggered images, by a linear probe; wanted: the target class
TEXT_RETRIEVAL = "tr"  # captions for images; wanted: the image's own
IMAGE_RETRIEVAL = "ir"  # images for captions; wanted: the caption's own
