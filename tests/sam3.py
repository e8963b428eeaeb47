"""A tiny SAM 3 of random weights on disk, with a real CLIP tokenizer, as the hub's folder has them."""

import gzip
import json
from pathlib import Path

import open_clip
import torch
from transformers import CLIPTokenizer, Sam3Config, Sam3ImageProcessor, Sam3Model

SIDE = 112
_WIDTH = 32
_LAYER = {"hidden_size": _WIDTH, "num_attention_heads": 2}
_SHALLOW = {**_LAYER, "num_layers": 1, "intermediate_size": 64}


def write_sam3(folder: Path, *, seed: int = 0) -> None:
    """Write config, weights, tokenizer and image processor into `folder`."""
    config = Sam3Config(
        vision_config={
            "backbone_config": {
                **_LAYER,
                "model_type": "sam3_vit_model",
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "image_size": SIDE,
                "pretrain_image_size": SIDE,
                "patch_size": 14,
                "window_size": 4,
                "global_attn_indexes": [1],
            },
            "fpn_hidden_size": _WIDTH,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config={
            **_LAYER,
            "model_type": "clip_text_model",
            "vocab_size": 49408,
            "intermediate_size": 64,
            "projection_dim": _WIDTH,
            "num_hidden_layers": 1,
            "max_position_embeddings": 32,
        },
        geometry_encoder_config=_SHALLOW,
        detr_encoder_config=_SHALLOW,
        detr_decoder_config={**_SHALLOW, "num_queries": 5},
        mask_decoder_config=_LAYER,
    )
    torch.manual_seed(seed)
    model = Sam3Model(config)
    for name, weight in model.named_parameters():  # fresh weights answer everything alike
        if "semantic_projection" in name or "presence_head" in name or "text_projection" in name:
            weight.data.mul_(20)
    model.save_pretrained(folder)
    Sam3ImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    write_clip_tokenizer(folder)


def write_clip_tokenizer(folder: Path) -> None:
    """Write CLIP's tokenizer, from the byte pairs that open_clip brings."""
    packed = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(packed.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    ends = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    encoder = open_clip.tokenizer.SimpleTokenizer().encoder
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {ends.get(token, token): number for token, number in encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
