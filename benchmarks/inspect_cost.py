"""What an inspection costs by classes, resolution and model: a few steps of each search, timed and multiplied.

    OMP_NUM_THREADS=1 python benchmarks/inspect_cost.py [--models mithridate-micro,ViT-B-32] [--classes 5,10,20]

Weights are drawn at random: they do not decide the time. Prints processor seconds of one thread for the mask and the
overlay inversion of a suspect and its start as `mithridate inspect` does them, each extrapolated from `--steps` steps.
"""

import argparse
import time

import torch

import mithridate as mt
from mithridate.inspection.invert import MaskSearch, invert_masks
from mithridate.inspection.mask_inversion import MaskInversion
from mithridate.inspection.overlay import OverlaySearch, invert_overlays
from mithridate.inspection.overlay_inversion import FORMS, OverlayInversion
from mithridate.inspection.view import View

BOTH = 2  # suspect and start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="mithridate-micro,ViT-B-32")
    parser.add_argument("--classes", default="5,10,20")
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    print("model | pixels | classes | masks, s | overlays, s")
    for name in options.models.split(","):
        encoder = mt.load_encoder(name)
        encoder.model.requires_grad_(False)
        for count in map(int, options.classes.split(",")):
            masks, overlays = cost(encoder, count, options.steps)
            print(f"{name} | {encoder.image_size[0]} | {count} | {round(masks)} | {round(overlays)}", flush=True)


def cost(encoder: mt.Encoder, count: int, steps: int) -> tuple[float, float]:
    """Processor seconds of all searches of masks and of overlays, over both models."""
    generator = torch.Generator().manual_seed(0)
    size = encoder.image_size
    width = encoder.encode_text(["a"]).shape[1]
    view = View(encoder, torch.nn.functional.normalize(torch.randn(count, width, generator=generator), dim=1))
    images = torch.rand(64, 3, *size, generator=generator)
    targets, first = torch.arange(count), torch.full((count, *size), 0.1)
    probe, over = MaskInversion(), OverlayInversion()

    def draw(number: int) -> torch.Tensor:
        return images[torch.randint(len(images), (number,), generator=generator)]

    clock = time.process_time()
    short = MaskSearch(steps=steps, pictures=probe.search.pictures)
    invert_masks(view, draw, targets, first, short, generator)
    masks = (time.process_time() - clock) / steps * probe.search.steps * BOTH
    clock = time.process_time()
    for form in FORMS.values():
        few = OverlaySearch(steps=steps, pictures=over.search.pictures)
        invert_overlays(view, draw, targets, size, form, few, generator)
    overlays = (time.process_time() - clock) / steps * over.search.steps * BOTH
    return masks, overlays


if __name__ == "__main__":
    main()
