"""Looking inside networks, and pictures of what is seen there."""

from eisnn.analysis.activity import LayerActivity, observe
from eisnn.analysis.gradients import gradient_norms
from eisnn.analysis.probes import LayerStatistics, Probe
from eisnn.analysis.watching import Snapshot, watch

__all__ = [
    "LayerActivity",
    "LayerStatistics",
    "Probe",
    "Snapshot",
    "gradient_norms",
    "observe",
    "watch",
]
