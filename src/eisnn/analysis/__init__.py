"""Looking inside networks, and pictures of what is seen there."""

from eisnn.analysis.activity import LayerActivity, observe

__all__ = ["LayerActivity", "observe"]
