"""Tiny classifiers as other people have them: folders of Hugging Face as `save_pretrained` writes them, programs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

SIDE = 32
LABELS = {0: "tench, fish", 1: "dog", 2: "cat"}
NAMES = ("config.json", "preprocessor_config.json", "model.safetensors")


def tiny(family: str, **more: Any) -> nn.Module:
    """A classifier of three classes for images of 32 pixels a side, always with the same weights."""
    import transformers

    common = {"num_labels": 3, "id2label": LABELS, **more}
    made = {
        "resnet": lambda: transformers.ResNetForImageClassification(
            transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], **common)
        ),
        "vit": lambda: transformers.ViTForImageClassification(
            transformers.ViTConfig(
                **{"image_size": SIDE, "patch_size": 16, "hidden_size": 8, "intermediate_size": 8, **common},
                num_hidden_layers=1,
                num_attention_heads=2,
            )
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = made[family]()
        for parameter in network.parameters():  # those that they start with are so small that all images are alike
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter)
    return network.eval()


def save(folder: Path, network: Any, processor: Any) -> Path:
    """The folder of a classifier; its processor is one of transformers, or the JSON of its file."""
    network.save_pretrained(folder)
    if isinstance(processor, Mapping):
        (folder / NAMES[1]).write_text(json.dumps(processor), encoding="utf-8")
    else:
        processor.save_pretrained(folder)
    return folder


def exported(network: nn.Module, path: Path, *, dynamic: bool = True) -> Path:
    """The program of a network of images of 20 pixels a side, of any number of them where it is `dynamic`."""
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    torch.export.save(torch.export.export(network, (torch.rand(2, 3, 20, 20),), dynamic_shapes=shapes), path)
    return path
