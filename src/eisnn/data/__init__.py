"""Data sets of images and events, read from their original files.

>>> from eisnn.data import load_data
>>> source = load_data("digits")
>>> inputs, labels = source.train.batch([0, 1, 2])       # [B, C, H, W] in [0, 1], [B]
>>> inputs.shape, source.num_classes
(torch.Size([3, 1, 8, 8]), 10)
"""

try:
    import numpy as _numpy  # noqa: F401
except ImportError as error:
    raise ImportError("eisnn.data needs numpy: pip install 'eisnn[train]'") from error

from eisnn.data.pipelines import augmentation, evaluation_transform, list_augmentations
from eisnn.data.registry import data_options, list_data_sets, load_data
from eisnn.data.source import Arrays, DataSource
from eisnn.data.splits import split_validation

__all__ = [
    "Arrays",
    "DataSource",
    "augmentation",
    "data_options",
    "evaluation_transform",
    "list_augmentations",
    "list_data_sets",
    "load_data",
    "split_validation",
]
