"""Rows of the tables that families share: the prompt encoder and the mask decoder."""

from convert.tables import CONVOLUTION, LEADING_ONE, UPSCALING, Row, layer, norm, row, under

# Layers of the MLPs that make a mask's weights of its token.
HYPERNETWORK_DEPTH = 3


def prompt_rows(official: str) -> tuple[Row, ...]:
    """The prompt encoder; needs a range "point".

    Args:
      official: its name in the original's files.
    """
    root = ("params/prompt_encoder", official, "prompt_encoder")
    rows = [
        row(
            "constants/prompt_encoder/positional_encoding_gaussian_matrix",
            f"{official}.pe_layer.positional_encoding_gaussian_matrix",
            (
                "shared_image_embedding.positional_embedding",
                "prompt_encoder.shared_embedding.positional_embedding",
            ),
        ),
        row(
            *under(
                root,
                "point_embeddings",
                "point_embeddings.{point}.weight",
                "point_embed.{point}.weight",
            ),
            LEADING_ONE,
            stack="point",
        ),
        row(*under(root, "not_a_point_embed", *2 * ("not_a_point_embed.weight",)), LEADING_ONE),
        row(*under(root, "no_mask_embed", *2 * ("no_mask_embed.weight",)), LEADING_ONE),
    ]
    # Convolution, norm and GELU in turn, numbered together by the original.
    for i, place in ((1, 0), (2, 3), (3, 6)):
        names = f"mask_downscaling/conv{i}", f"mask_downscaling.{place}", f"mask_embed.conv{i}"
        rows += layer(*under(root, *names), CONVOLUTION)
    for i, place in ((1, 1), (2, 4)):
        names = (
            f"mask_downscaling/norm{i}",
            f"mask_downscaling.{place}",
            f"mask_embed.layer_norm{i}",
        )
        rows += norm(*under(root, *names))
    return tuple(rows)


def decoder_rows(
    root: tuple[str, str, str], mlp: tuple[str, str], huggingface_mlp: tuple[str, str]
) -> tuple[Row, ...]:
    """Tokens, transformer, hypernetworks and IoU head of the mask decoder.

    Needs the ranges "layer", "attention", "projection", "norm", "mask", "hyper" and "head".

    Args:
      root: our path and both names of the decoder.
      mlp: the two layers of the transformer's MLPs in the original's files.
      huggingface_mlp: the same in Hugging Face's.
    """
    block = under(root, "transformer/layers_{layer}", *2 * ("transformer.layers.{layer}",))
    final = "final_attn_token_to_image"
    return (
        row(*under(root, "iou_token", *2 * ("iou_token.weight",)), LEADING_ONE),
        row(*under(root, "mask_tokens", *2 * ("mask_tokens.weight",))),
        *layer(*under(block, "{attention}/{projection}", *2 * ("{attention}.{projection}",))),
        *norm(*under(block, "norm{norm}", "norm{norm}", "layer_norm{norm}")),
        *layer(*under(block, "mlp/lin1", mlp[0], huggingface_mlp[0])),
        *layer(*under(block, "mlp/lin2", mlp[1], huggingface_mlp[1])),
        *layer(
            *under(
                root,
                f"transformer/{final}/{{projection}}",
                *2 * (f"transformer.{final}.{{projection}}",),
            )
        ),
        *norm(
            *under(
                root,
                "transformer/norm_final_attn",
                "transformer.norm_final_attn",
                "transformer.layer_norm_final_attn",
            )
        ),
        *layer(
            *under(
                root,
                "output_hypernetworks_mlps/layers_{hyper}",
                *2 * ("output_hypernetworks_mlps.{mask}.{hyper}",),
            ),
            stack="mask",
        ),
        *layer(
            *under(root, "iou_prediction_head/layers_{head}", *2 * ("iou_prediction_head.{head}",))
        ),
    )


def upscaling_rows(
    root: tuple[str, str, str], first: str, between: str, second: str
) -> tuple[Row, ...]:
    """The decoder's two upscaling convolutions and the norm between them, by our names."""
    return (
        *layer(*under(root, first, "output_upscaling.0", "upscale_conv1"), UPSCALING),
        *norm(*under(root, between, "output_upscaling.1", "upscale_layer_norm")),
        *layer(*under(root, second, "output_upscaling.3", "upscale_conv2"), UPSCALING),
    )
