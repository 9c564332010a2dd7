"""Pipelines of the real classes with random weights, a few hundred kilobytes each, saved as any other is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

SIDE = 32


def tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer with single letters as its words."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.-'"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )


def text_config(width: int = 32, projection: int = 32) -> Any:
    """A CLIP text encoder of two layers."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=128, hidden_size=width, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=77, projection_dim=projection, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip


def vae() -> Any:
    """An autoencoder that halves the side once."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16), in_channels=3, out_channels=3, latent_channels=4, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=SIDE,
    )  # fmt: skip


def stable_diffusion(folder: Path, scheduler: Any = None, seed: int = 0) -> Path:
    """A StableDiffusionPipeline."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=SIDE // 2, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=4, attention_head_dim=2,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=32,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        unet=unet, vae=vae(), text_encoder=CLIPTextModel(text_config()).eval(),
        tokenizer=tokenizer(folder.with_name(f"{folder.name}-words")),
        scheduler=scheduler or DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder


def stable_diffusion_xl(folder: Path) -> Path:
    """A StableDiffusionXLPipeline with both text encoders."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=SIDE // 2, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=4, attention_head_dim=(2, 4),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=64, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )  # fmt: skip
    words = folder.with_name(f"{folder.name}-words")
    pipe = StableDiffusionXLPipeline(
        unet=unet, vae=vae(), scheduler=EulerDiscreteScheduler(),
        text_encoder=CLIPTextModel(text_config()).eval(), tokenizer=tokenizer(words),
        text_encoder_2=CLIPTextModelWithProjection(text_config()).eval(), tokenizer_2=tokenizer(words),
        add_watermarker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder


def class_conditional(folder: Path, classes: tuple[str, ...], channels: int = 1) -> Path:
    """A class-conditional pipeline for grey images of 12 px in a network of 16."""
    from diffusers import DPMSolverMultistepScheduler, UNet2DModel

    from edgedistill.synth.conditional import ClassConditionalPipeline

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16, in_channels=channels, out_channels=channels, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4, num_class_embeds=len(classes) + 1, add_attention=False,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2")
    ClassConditionalPipeline(unet, scheduler, list(classes), crop=12).save_pretrained(folder)
    return folder
