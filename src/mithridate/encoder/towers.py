"""The two towers of an open_clip model: their parameters, their trunks and projections, text without padding."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from open_clip import CLIP, CoCa, CustomTextCLIP
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn

from mithridate.errors import EncoderError

Tower = Literal["image", "text"]

# Captions of a batch are run in so many groups by length, of at least so many: photographs' captions then need 0.6 of
# the positions of one group
_GROUPS = 4
_SMALLEST_GROUP = 16

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
    raise EncoderError(f"the {tower} tower of this model has no projection of its own; freeze it whole or not at all")


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
    elif isinstance(projection, nn.Module) and name in ("head", "proj"):  # timm's and Hugging Face's towers call them
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


def pools_end_token(model: nn.Module) -> bool:
    """Whether captions are read off at their end token (the largest id) by a causal tower, as CLIP's are.

    Such a tower does not see what follows the end token: leaving that out is exact.
    """
    text = model if isinstance(model, CLIP) else getattr(model, "text", None)
    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    if not isinstance(text, CLIP | TextTransformer) or pool != "argmax":
        return False
    return getattr(text, "attn_mask", None) is not None and getattr(text, "cls_emb", None) is None


def vocabulary_size(model: nn.Module) -> int:
    """How many tokens the text tower has embeddings for."""
    text: Any = getattr(model, "text", model)
    embedding = text.token_embedding if hasattr(text, "token_embedding") else text.transformer.get_input_embeddings()
    return int(embedding.num_embeddings)


def image_embedding(model: nn.Module, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
    """Embeddings of normalised images at the length that the model gives them."""
    run: Any = model
    return run.encode_image(images, normalize=False) if isinstance(model, CoCa) else run.encode_image(images)


def text_embedding(model: nn.Module, tokens: Int[Tensor, "b length"]) -> Float[Tensor, "b d"]:
    """Embeddings of tokenised captions, not normalised: `model.encode_text` without what they do not depend on.

    Raises `EncoderError` for a model without `encode_text`.
    """
    if not hasattr(model, "encode_text"):
        raise EncoderError(f"expected a model with encode_image and encode_text, got {type(model).__name__}")
    if not isinstance(model, CLIP | CustomTextCLIP) or not pools_end_token(model):
        run: Any = model
        return run.encode_text(tokens, normalize=False) if isinstance(model, CoCa) else run.encode_text(tokens)
    text: Any = model if isinstance(model, CLIP) else model.text
    ends = tokens.argmax(dim=1)
    groups = _by_length(ends, len(text.transformer.resblocks))
    # one look-up for all groups: each would have a gradient of the whole vocabulary
    positions = torch.cat([tokens[rows, :length].flatten() for rows, length in groups])
    embedded = text.token_embedding(positions).split([len(ends[rows]) * length for rows, length in groups])
    pooled = torch.cat([_at_ends(text, x, ends[rows], length) for x, (rows, length) in zip(embedded, groups)])
    pooled = text.ln_final(pooled)
    if text.text_projection is not None:
        projection = text.text_projection
        pooled = projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection
    return pooled if len(groups) == 1 else pooled[torch.cat([rows for rows, _ in groups]).argsort()]


def _by_length(ends: Int[Tensor, " b"], blocks: int) -> list[tuple[Any, int]]:
    """Groups of rows whose captions are about as long, each with the length that holds them.

    One group where the single block is for the end tokens alone, and on a GPU, where calls are what costs.
    """
    count = 1 if blocks == 1 or ends.device.type != "cpu" else max(1, min(_GROUPS, len(ends) // _SMALLEST_GROUP))
    if count == 1:
        return [(slice(None), int(ends.max()) + 1)]
    return [(rows, int(ends[rows[-1]]) + 1) for rows in ends.argsort(stable=True).tensor_split(count)]


def _at_ends(text: Any, x: Float[Tensor, "positions width"], ends: Int[Tensor, " b"], length: int) -> Tensor:
    """What the last block makes of end tokens (b, width), from embedded tokens of b captions cut to one length."""
    transformer, dtype = text.transformer, text.transformer.get_cast_dtype()
    x = x.view(len(ends), length, -1).to(dtype) + text.positional_embedding[:length].to(dtype)
    mask = text.attn_mask[:length, :length]
    rows = torch.arange(len(ends), device=ends.device)
    *blocks, last = transformer.resblocks
    if type(last) is not ResidualAttentionBlock or not transformer.batch_first or transformer.grad_checkpointing:
        return transformer(x, attn_mask=mask)[rows, ends]
    for block in blocks:
        x = block(x, attn_mask=mask)
    # nothing but the end tokens is read from the last block: it needs keys and values of all positions, no more
    normed = last.ln_1(x)
    mask = mask[ends].repeat_interleave(last.attn.num_heads, dim=0).unsqueeze(1)
    attended = last.attention(q_x=normed[rows, ends].unsqueeze(1), k_x=normed, v_x=normed, attn_mask=mask)
    x = x[rows, ends] + last.ls_1(attended.squeeze(1))
    return x + last.ls_2(last.mlp(last.ln_2(x)))
