"""What a warning means and what to do about it: as docs/warnings.md has them, which a test holds against this."""

ADVICE: dict[str, tuple[str, str]] = {
    "cropped-trigger": (
        "A trainer that crops loses part of the poison. The share for SimCLR's crops (8 to 100 %) stands beside "
        "it and is not warned of: defences crop on purpose.",
        "Keep a margin (margin=), or take a trigger that covers the image.",
    ),
    "faint-trigger": (
        "Resizing averages the trigger away, or the storage does: the model never sees what was put in.",
        "Make it coarser or stronger, or give sizes as shares of the image (16/224).",
    ),
    "few-poisons": (
        "A model that is not fooled may have met too little poison, and says nothing of a defence. (59 poisons in "
        "COCO gave 0.25 % success.)",
        "Raise --count; on a small set trained for many epochs fewer may do: measure it without a defence first.",
    ),
    "leak": (
        "A detector may find how the poison was written, not the poison. It is expected of an overlay (altered "
        "images lie in a folder of their own; a caption moved to another image points away from its place in the "
        "list), of single-image (all poison has the size of one picture), and where a class of images differs from "
        "others in size.",
        "Write --format table or webdataset; look first at the kinds of feature that are named.",
    ),
    "much-removed": (
        "The level does not belong to this encoder's scale (clean pairs lie about 0.61 under one, 0.75 under "
        "another), or the detector found a border that is not that of poison.",
        "Look at the densities in the report, and use --clean-quantile or --budget-share.",
    ),
    "nothing-removed": (
        "Training on the keep-list is training on everything.",
        "As for much-removed.",
    ),
    "shared-images": (
        "Utility is measured on what the model has seen. (Half of Visual Genome is COCO; the published gain in "
        "COCO utility after post-training on it is likely this.)",
        "Take these images out of one of the two sets.",
    ),
    "below-chance": (
        "A good model keeps captions of class A away from images of class B, so chance is too high a bar: an "
        "attack may work and still stay below it. (The published mmPoison baseline on PASCAL is below chance, "
        "0.200 against 0.404.)",
        "Compare the attack with the reference, and name chance beside it.",
    ),
    "clean-model-fooled": (
        "The trigger, or the likeness of image and class, does part of the work without any poison.",
        "Report the difference to the reference; take a trigger that hides less of the image, or another target class.",
    ),
    "clean-model-succeeds": (
        "Class A and class B are close for a model that never saw poison (they share scenes, words or images). "
        "Not all of the evaluated model's success comes from the attack.",
        "Report the difference to the reference, or choose classes that are further apart.",
    ),
    "collapsed-class": (
        "The overall figure hides what the attack destroys: class A is a few per cent of the test set, so losing "
        "all of it costs a few points. With all of class A replaced this is what the attack does, not an "
        "accident.",
        "Report utility for class A, class B and the other classes, as the table does.",
    ),
    "control-contains-target": (
        "The control retrieves class B rightly, and looks like an attack that works without poison. Our own "
        "control excludes all classes of all goals; the published one does not (Hit@1 of 0.024 to 0.048 for it).",
        "Draw the control from captions of other classes.",
    ),
    "few-queries": (
        "One caption moves Hit@K by more than three points. Captions of one image are not independent: the "
        "interval is over images, and six images tell less than thirty captions promise.",
        "Use a larger test set, or pool several goals.",
    ),
    "few-targets": (
        "MinRank and Hit@K hang on these few images, and one of them moves what is measured from image to text by "
        "more than six points. Intervals are over captions and do not contain the choice of the targets.",
        "Use a larger test set; for one target image, repeat the attack with several and report over them.",
    ),
    "no-classifier": (
        "It classifies nothing, so what it takes triggered images for says little; one that always names the "
        "target would have a success rate of 1.",
        "Train longer, or use class names that its captions have.",
    ),
    "no-clean-model": (
        "Success can only be compared with chance and with random captions, which a clean model need not meet.",
        "Train the same model on the clean pairs with the same recipe, and give it as --clean.",
    ),
    "no-densities": (
        "The figure of cosine distances is missing; all other numbers are unaffected.",
        "Evaluate where the poisoned set was made, or make it again.",
    ),
    "nothing-to-repair": (
        "There is little to remove, and every strength looks like a repair.",
        "Repair a model on which the attack took.",
    ),
    "target-added": (
        "It was added to the gallery for the attack's figures alone; the gallery is one image larger there.",
        "Nothing, or choose the target image from the test split (--gallery-split test), as the published code does.",
    ),
    "unequal-recipes": (
        "A difference in utility or success may come from the recipe. (The published mmPoison configurations "
        "differ in batch size and epochs; its poisoned COCO models have higher utility than the clean one.)",
        "Train both with the same command.",
    ),
    "unheld-manifest": (
        "The manifest may be of another data set than the model saw. It is expected of a model trained on what a "
        "filter left, of a repaired one, and of one trained on a copy that renames images (a written table, "
        "shards).",
        "Give --train, the data that were poisoned: the manifest is then held against them, and refused where it "
        "is of others.",
    ),
}
