"""Exchange of networks with other software.

:mod:`eisnn.interop.published` reads and writes the format of the paper's published
checkpoints. Needs more than torch: ``pip install 'eisnn[interop]'``.
"""

from eisnn.interop.published import load_published, published_state_dict, save_published

__all__ = ["load_published", "published_state_dict", "save_published"]
