"""scikit-learn's handwritten digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eisnn.data.files import default_root, digest, require
from eisnn.data.sets.common import DIGITS, image_arrays, padding
from eisnn.data.source import DataSource, Provenance
from eisnn.data.splits import stratified

__all__ = ["digits"]


def digits(
    root: Path, *, test_fraction: float = 0.2, seed: int = 0, pad_to: int | None = None
) -> DataSource:
    """1,797 images of 8x8 pixels with grey levels 0 to 16, in scikit-learn itself.

    There is no official split; ``"random"`` takes a share of each class for the test set.

    Args:
        root: none but the default, because there are no files to look for.
        test_fraction: that share.
        seed: of the split.
        pad_to: side in pixels to which images are padded with zeros on all sides.

    Raises:
        ValueError: a root is given.
    """
    if root != default_root():
        raise ValueError(
            f"digits comes with scikit-learn and takes no data.root (root= in Python), got {root}. "
            "For pictures of your own: data.name=image-folder data.root=FOLDER, or the recipe "
            "image-folder-small"
        )
    bunch = require("sklearn.datasets", "scikit-learn").load_digits()
    images, labels = bunch.images.astype(np.uint8)[:, None], bunch.target.astype(np.int64)
    everything = image_arrays(images, labels, 16, pad_to)  # [n, 1, 8, 8]
    train, test = stratified(everything.labels, test_fraction, seed)
    provenance: Provenance = {
        "sha256": digest(images, labels),
        "test_fraction": test_fraction,
        "split_seed": seed,
    }
    return DataSource(
        name="digits",
        train=everything.subset(train),
        test=everything.subset(test),
        classes=DIGITS,
        split="random",
        provenance=provenance | padding(pad_to),
    )
