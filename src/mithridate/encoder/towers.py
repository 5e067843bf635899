"""The two towers of an open_clip model: their parameters, their trunks and projections, text without padding."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from open_clip import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn

from mithridate.errors import EncoderError

Tower = Literal["image", "text"]

# the text tower's parts are siblings of the image tower in open_clip's CLIP
_TEXT_PARTS = ("transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection")


def tower_parameters(model: nn.Module, tower: Tower) -> dict[str, nn.Parameter]:
    """Every parameter of a tower by name: embeddings and projection included, logit scale and bias not."""
    names = ("visual",) if tower == "image" else ("text",) if hasattr(model, "text") else _TEXT_PARTS
    return {name: p for name, p in model.named_parameters() if name.split(".")[0] in names}


def tower_modules(model: nn.Module, tower: Tower) -> list[nn.Module]:
    """The tower's top modules: what must be in eval mode while the tower is frozen."""
    names = ("visual",) if tower == "image" else ("text",) if hasattr(model, "text") else _TEXT_PARTS
    return [module for name in names if isinstance(module := getattr(model, name, None), nn.Module)]


def projection_prefix(model: nn.Module, tower: Tower) -> str:
    """Where the names of the projection into the joint space begin. Raises `EncoderError` if there is none."""
    owner, name = _projection(model, tower)
    prefix = next(prefix for prefix, module in model.named_modules() if module is owner)
    return f"{prefix}.{name}" if prefix else name


def _projection(model: nn.Module, tower: Tower) -> tuple[nn.Module, str]:
    if tower == "text":
        for owner in (model, getattr(model, "text", None)):
            for name in ("text_projection", "proj"):
                if isinstance(owner, nn.Module) and getattr(owner, name, None) is not None:
                    return owner, name
    else:
        visual = model.get_submodule("visual")
        for owner, name in ((visual, "head"), (visual, "proj")):
            if getattr(owner, name, None) is not None:
                return owner, name
        # OpenAI's ResNets project inside their attention pool
        pool = getattr(visual, "attnpool", None)
        if isinstance(pool, nn.Module) and hasattr(pool, "c_proj"):
            return pool, "c_proj"
    raise EncoderError(f"this model has no projection that could be told from the trunk of its {tower} tower")


@contextmanager
def without_projection(model: nn.Module, tower: Tower) -> Iterator[None]:
    """Inside, the tower gives its trunk's features instead of embeddings."""
    owner, name = _projection(model, tower)
    projection = getattr(owner, name)
    if name == "c_proj":  # not called as a module: its weights go into the attention itself
        identity = nn.Linear(projection.in_features, projection.in_features).to(projection.weight)
        with torch.no_grad():
            identity.weight.copy_(torch.eye(projection.in_features))
            identity.bias.zero_()
        setattr(owner, name, identity)
    elif isinstance(projection, nn.Module) and name == "head":
        setattr(owner, name, nn.Identity())
    else:
        setattr(owner, name, None)
    try:
        yield
    finally:
        setattr(owner, name, projection)


def project(model: nn.Module, tower: Tower, features: Float[Tensor, "b width"]) -> Float[Tensor, "b d"]:
    """Trunk features into the joint space."""
    owner, name = _projection(model, tower)
    projection = getattr(owner, name)
    return projection(features) if isinstance(projection, nn.Module) else features @ projection


def trimmed_length(model: nn.Module, tokens: Int[Tensor, "b length"]) -> int:
    """How many positions decide the embeddings: up to the last end token, where the tower lets later ones go.

    A causal tower that pools the end token (the largest id) does not see what follows it: cutting there is exact.
    """
    length = tokens.shape[1]
    text = model if isinstance(model, CLIP) else getattr(model, "text", None)
    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    if not isinstance(text, CLIP | TextTransformer) or pool != "argmax" or getattr(text, "attn_mask", None) is None:
        return length
    if getattr(text, "cls_emb", None) is not None:
        return length
    return int(tokens.argmax(dim=1).max()) + 1


def text_embedding(model: nn.Module, tokens: Int[Tensor, "b length"]) -> Float[Tensor, "b d"]:
    """Embeddings of tokenised captions, not normalised; the same as `model.encode_text`, without the padding."""
    short = tokens[:, : trimmed_length(model, tokens)]
    if isinstance(model, CLIP):
        return _without_padding(model, short, pool=str(model.text_pool_type))
    if not isinstance(model, CustomTextCLIP):
        raise EncoderError(f"expected open_clip's CLIP or CustomTextCLIP, got {type(model).__name__}")
    if short.shape == tokens.shape:
        return model.encode_text(tokens)
    return _without_padding(model.text, short, pool="argmax")


def _without_padding(text: Any, tokens: Int[Tensor, "b length"], *, pool: str) -> Float[Tensor, "b d"]:
    # CLIP's own encode_text adds all of its position embeddings, TextTransformer's all of its mask
    length = tokens.shape[1]
    dtype = text.transformer.get_cast_dtype()
    x = text.token_embedding(tokens).to(dtype) + text.positional_embedding[:length].to(dtype)
    mask = text.attn_mask[:length, :length] if isinstance(text.attn_mask, Tensor) else None
    x = text.ln_final(text.transformer(x, attn_mask=mask))
    x = text_global_pool(x, tokens, pool, eos_token_id=getattr(text, "text_eos_id", None))
    if text.text_projection is None:
        return x
    return text.text_projection(x) if isinstance(text.text_projection, nn.Module) else x @ text.text_projection
