"""An encoder that attacks work with: embeddings of images and captions, and gradients through its preprocessing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from mithridate.encoder.embed import Progress, _silent, embed_images, embed_tokens, image_source, tokenise
from mithridate.encoder.encoder import Encoder
from mithridate.encoder.towers import image_embedding
from mithridate.errors import EncoderError


@dataclass(frozen=True)
class SurrogateEncoder:
    """`encoder` as an attack's surrogate; it need not be the encoder that is trained, or that a filter looks with."""

    encoder: Encoder
    cache: Path | str | None = "default"
    cache_limit: int | None = None
    progress: Progress = _silent

    @property
    def name(self) -> str:
        return self.encoder.name

    def __call__(self, locations: pa.Array, /) -> Float[np.ndarray, "m d"]:
        """Embeddings of the images at `locations` (m,)."""
        source = image_source(self.encoder, locations, cache=self.cache, limit=self.cache_limit, progress=self.progress)
        return embed_images(self.encoder, source, len(locations), progress=self.progress)

    def embed_texts(self, texts: pa.Array) -> Float[np.ndarray, "k d"]:
        """Embeddings of captions (k,), each distinct one computed once."""
        tokens, index = tokenise(self.encoder, texts, cache=self.cache)
        return embed_tokens(self.encoder, tokens, progress=self.progress)[index]

    def pixels(self, locations: pa.Array) -> UInt8[np.ndarray, "m h w 3"]:
        """The images at `locations` (m,) as the encoder takes them."""
        source = image_source(self.encoder, locations, cache=self.cache, limit=self.cache_limit, progress=self.progress)
        return source.gather(np.arange(len(locations)))

    def prepare(self, image: Float[Tensor, "3 height width"]) -> Float[Tensor, "3 h w"]:
        """What `Encoder.to_pixels` does, differentiable and without its rounding; values stay in 0 to 255.

        Raises `EncoderError` for preprocessing other than resizing to cover and cropping the middle, or squashing.
        """
        cfg = self.encoder.config["preprocess_cfg"]
        height, width = self.encoder.image_size
        mode = cfg["resize_mode"]
        interpolation = functional.InterpolationMode(cfg["interpolation"])
        if mode == "squash":
            return functional.resize(image, [height, width], interpolation=interpolation, antialias=True)
        if mode != "shortest" or height != width:
            raise EncoderError(
                f"{self.name} resizes images by {mode!r} to {height}x{width}; a surrogate with gradients resizes by "
                "'shortest' to a square or by 'squash'; choose another encoder"
            )
        small = functional.resize(image, [height], interpolation=interpolation, antialias=True)
        return functional.center_crop(small, [height, width])

    def features(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit-length embeddings of prepared images of values 0 to 255, with a gradient to them."""
        cfg = self.encoder.config["preprocess_cfg"]
        mean, std = (pixels.new_tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        ready = ((pixels / 255 - mean) / std).to(self.encoder.device)
        return nn.functional.normalize(image_embedding(self.encoder.model, ready).float(), dim=-1)
