"""The two-way transformer: prompt tokens attend to the image, the image attends to them.

Prompts are an axis of their own, beside the batch of images. The image side starts with a prompt
axis of length 1 (unless mask prompts differ) and only grows to one copy a prompt where the
algorithm itself makes the copies differ: after the first layer.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from sam_jax.models.config import ModelConfig
from sam_jax.models.layers import (
    TRANSFORMER_EPSILON,
    Dense,
    LayerNorm,
    MLPBlock,
    add_to_channels,
)
from sam_jax.ops.attention import prompt_attention

Tokens = Float[Array, "B prompts tokens C"]


class Attention(nn.Module):
    """Multi-head attention that may work in fewer channels than its inputs have."""

    num_heads: int
    internal_dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        q: Float[Array, "B query_prompts q C"],
        k: Float[Array, "B key_prompts k C"],
        v: Float[Array, "B key_prompts k C"],
        key_mask: Bool[Array, "B key_prompts k"] | None = None,
    ) -> Float[Array, "B prompts q C"]:
        """Attends within each prompt; either side may be shared by all of them."""
        channels = q.shape[-1]

        def project(x, name):
            x = Dense(self.internal_dim, dtype=self.dtype, name=name)(x)
            return x.reshape(*x.shape[:-1], self.num_heads, -1)

        out = prompt_attention(
            project(q, "q_proj"), project(k, "k_proj"), project(v, "v_proj"), key_mask
        )
        out = out.reshape(*out.shape[:-2], self.internal_dim)
        return Dense(channels, dtype=self.dtype, name="out_proj")(out)


class TwoWayAttentionBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP, image to tokens; post-norm."""

    config: ModelConfig
    is_first: bool
    dtype: Any = jnp.float32
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "B P N C"],
        keys: Float[Array, "B key_prompts T C"],
        query_pe: Float[Array, "B P N C"],
        key_pe: Float[Array, "T C"],
        query_mask: Bool[Array, "B P N"],
    ) -> tuple[Float[Array, "B P N C"], Float[Array, "B P T C"]]:
        """One layer; returns the new tokens and the new image side."""
        config = self.config
        internal_dim = config.embed_dim // config.attention_downsample_rate

        drop = nn.Dropout(self.dropout, deterministic=self.dropout == 0)

        def attend(name, dim, dtype=self.dtype, **inputs):
            return drop(Attention(config.decoder_num_heads, dim, dtype, name=name)(**inputs))

        def norm(i, x, dtype=jnp.float32):
            return LayerNorm(epsilon=TRANSFORMER_EPSILON, dtype=dtype, name=f"norm{i}")(x)

        # The first layer's tokens are their own positions: nothing is added, nothing is kept.
        q = queries if self.is_first else queries + query_pe
        out = attend(
            "self_attn", config.embed_dim, jnp.float32, q=q, k=q, v=queries, key_mask=query_mask
        )
        queries = norm(1, out if self.is_first else queries + out)

        q, k = queries + query_pe, add_to_channels(keys, key_pe)
        out = attend("cross_attn_token_to_image", internal_dim, q=q, k=k, v=keys)
        queries = norm(2, queries + out.astype(queries.dtype))

        mlp = MLPBlock(config.decoder_mlp_dim, nn.relu, name="mlp")
        queries = norm(3, queries + drop(mlp(queries)))

        q = queries + query_pe
        out = attend(
            "cross_attn_image_to_token", internal_dim, q=k, k=q, v=queries, key_mask=query_mask
        )
        return queries, norm(4, keys + out, self.dtype)


class TwoWayTransformer(nn.Module):
    """The mask decoder's transformer (SAM section A.5; original `TwoWayTransformer`)."""

    config: ModelConfig
    dtype: Any = jnp.float32
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        image_tokens: Float[Array, "B image_prompts T C"],
        image_pe: Float[Array, "T C"],
        tokens: Float[Array, "B P N C"],
        token_mask: Bool[Array, "B P N"],
    ) -> tuple[Float[Array, "B P N C"], Float[Array, "B P T C"]]:
        """Runs all layers and the final attention of tokens to the image.

        Args:
          image_tokens: the image embedding plus dense prompts; prompt axis 1 where all share it.
          image_pe: the positional encoding of the image tokens.
          tokens: output tokens and sparse prompts, which serve as their own positions.
          token_mask: False for tokens that only fill the batch.
        """
        queries, keys = tokens, image_tokens
        for i in range(self.config.decoder_depth):
            options = (self.config, i == 0, self.dtype, self.dropout)
            layer = TwoWayAttentionBlock(*options, name=f"layers_{i}")
            queries, keys = layer(queries, keys, tokens, image_pe, token_mask)
        attention = Attention(
            self.config.decoder_num_heads,
            self.config.embed_dim // self.config.attention_downsample_rate,
            self.dtype,
            name="final_attn_token_to_image",
        )
        drop = nn.Dropout(self.dropout, deterministic=self.dropout == 0)
        k = add_to_channels(keys, image_pe)
        out = drop(attention(q=queries + tokens, k=k, v=keys))
        queries = queries + out.astype(queries.dtype)
        norm = LayerNorm(epsilon=TRANSFORMER_EPSILON, name="norm_final_attn")
        return norm(queries), keys
