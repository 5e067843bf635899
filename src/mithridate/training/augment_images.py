"""SimCLR's augmentations (Chen et al., ICML 2020, appendix A) on whole batches of uint8 images.

Flip, random resized crop, colour jitter, greyscale and blur are linear in the pixels, so that an image takes two small
matrices over its rows and columns and one over its colours, whatever was drawn for it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from mithridate.training.batches import crop_windows

GREY = (0.299, 0.587, 0.114)
# luma and two axes of colour; a turn about the first is a shift of hue
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
_JITTER = (0.5, 0.5, 0.5)  # brightness, contrast, saturation, as RoCLIP and SafeCLIP set them
_HUE = 0.1
_SIGMA = (0.1, 2.0)  # of the blur in pixels of a 224-pixel image


@dataclass(frozen=True)
class Draws:
    """What was drawn for each of b images."""

    windows: Float[Tensor, "b 2 3"]  # see `crop_windows`; a negative width is a flip
    order: Int[Tensor, "b 4"]  # of brightness, contrast, saturation, hue
    factors: Float[Tensor, "b 4"]  # of each; the hue's in turns
    grey: Bool[Tensor, " b"]
    sigma: Float[Tensor, " b"]  # 0 is no blur

    def part(self, low: int, high: int) -> "Draws":
        """The draws of the images `low` to `high`."""
        return Draws(*(getattr(self, name)[low:high] for name in self.__dataclass_fields__))

    def to(self, device: torch.device) -> "Draws":
        return Draws(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def draw(b: int, *, generator: torch.Generator, crop: float = 0.08, flip: bool = True, jitter: bool = True) -> Draws:
    """Crops of `crop` to 1 of the area; flip 0.5; jitter 0.8 and greyscale 0.2, or neither; blur 0.5."""

    def chance(p: float) -> Tensor:
        return torch.rand(b, generator=generator) < p

    windows = crop_windows(b, generator=generator, low=crop)
    mirrored = chance(0.5)  # drawn in any case: the other draws stay what they are
    windows[:, 0, 0] *= torch.where(mirrored & flip, -1.0, 1.0)
    order = torch.rand(b, 4, generator=generator).argsort(dim=1)
    spread = torch.tensor([*_JITTER, _HUE])
    factors = (torch.rand(b, 4, generator=generator) * 2 - 1) * spread * (chance(0.8) & jitter)[:, None]
    factors[:, :3] += 1
    sigma = torch.empty(b).uniform_(*_SIGMA, generator=generator) * chance(0.5)
    return Draws(windows, order, factors, chance(0.2) & jitter, sigma)


def augment_images(pixels: UInt8[Tensor, "b h w 3"], draws: Draws) -> UInt8[Tensor, "b h w 3"]:
    """The images as drawn. Values are cut to 0 to 255 once, at the end (torchvision cuts after every change)."""
    b, height, width, _ = pixels.shape
    draws = draws.to(pixels.device)
    scale = max(height, width) / 224
    columns = _blur(width, draws.sigma * scale) @ _resample(width, draws.windows[:, 0, 0], draws.windows[:, 0, 2])
    rows = _blur(height, draws.sigma * scale) @ _resample(height, draws.windows[:, 1, 1], draws.windows[:, 1, 2])
    image = torch.bmm(rows, pixels.float().reshape(b, height, width * 3)).view(b, height, width, 3)
    image = torch.bmm(columns, image.transpose(1, 2).reshape(b, width, height * 3))
    image = image.view(b, width, height, 3).transpose(1, 2).reshape(b, height * width, 3)
    matrix, offset = colour_maps(image.mean(dim=1), draws)
    out = torch.baddbmm(offset[:, None], image, matrix.transpose(1, 2))
    return out.round_().clamp_(0, 255).to(torch.uint8).view(b, height, width, 3)


def _resample(size: int, width: Float[Tensor, " b"], centre: Float[Tensor, " b"]) -> Float[Tensor, "b size size"]:
    """Matrices from the pixels of a line to those of a window of it, linear between neighbours."""
    place = torch.arange(size, device=width.device)
    out = (2 * place + 1) / size - 1
    at = ((width[:, None] * out + centre[:, None] + 1) * size / 2 - 0.5).clamp(0, size - 1)  # (b, size)
    return (1 - (at[:, :, None] - place).abs()).clamp(min=0)


def _blur(size: int, sigma: Float[Tensor, " b"]) -> Float[Tensor, "b size size"]:
    """Matrices of a Gaussian along a line; at the border the weights inside are scaled to one."""
    place = torch.arange(size, device=sigma.device)
    distance = (place[:, None] - place).square()
    exponent = distance / (2 * sigma.clamp(min=1e-3).square())[:, None, None]
    weights = torch.exp(-exponent.clamp(max=80))  # beyond it exp is several times slower, and nothing to any pixel
    return weights / weights.sum(dim=2, keepdim=True)


def colour_maps(mean: Float[Tensor, "b 3"], draws: Draws) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 3"]]:
    """Colour jitter and greyscale as one affine map an image; `mean` is its mean colour, about whose grey value the
    contrast turns. Hue turns in YIQ, which is linear; torchvision's turns in HSV."""
    b, eye = len(mean), torch.eye(3, device=mean.device)
    grey = mean.new_tensor(GREY)
    to_grey = grey.expand(3, 3)
    brightness, contrast, saturation, hue = draws.factors.T
    keep = eye.expand(b, 3, 3)
    linear = torch.stack(
        [
            brightness[:, None, None] * keep,
            contrast[:, None, None] * keep,
            saturation[:, None, None] * keep + (1 - saturation)[:, None, None] * to_grey,
            _turn(hue),
        ],
        dim=1,
    )  # (b, 4, 3, 3)
    every = torch.arange(b, device=mean.device)
    matrix, offset = keep, torch.zeros_like(mean)
    for k in range(4):
        kind = draws.order[:, k]
        now = torch.einsum("bij,bj->bi", matrix, mean) + offset  # the mean colour so far
        shift = torch.where(kind == 1, (1 - contrast) * (now @ grey), 0.0)
        matrix = linear[every, kind] @ matrix
        offset = torch.einsum("bij,bj->bi", linear[every, kind], offset) + shift[:, None]
    last = torch.where(draws.grey[:, None, None], to_grey, keep)
    return last @ matrix, torch.einsum("bij,bj->bi", last, offset)


def _turn(hue: Float[Tensor, " b"]) -> Float[Tensor, "b 3 3"]:
    """Turns about the grey axis by `hue` of a circle."""
    yiq = hue.new_tensor(_YIQ)
    angle = 2 * torch.pi * hue
    cos, sin = angle.cos(), angle.sin()
    turn = torch.zeros(len(hue), 3, 3, device=hue.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2] = cos, -sin
    turn[:, 2, 1], turn[:, 2, 2] = sin, cos
    return torch.linalg.inv(yiq) @ turn @ yiq
