"""Training in float16 with a scaled loss, as on a GPU; the CPU computes it too, only slowly."""

import torch
import torch.nn.functional as F

import eisnn
from eisnn.training.module import make_optimiser
from eisnn.training.recipe import OptimiserConfig


def test_steps_in_float16_with_a_scaled_loss() -> None:
    """The step whose gradients overflow is skipped, and Dale's law holds after every other."""
    draw = torch.Generator().manual_seed(0)
    x, labels = torch.rand(32, 1, 8, 8, generator=draw), torch.arange(32) % 4
    model = eisnn.create_model("mlp4", num_classes=4, in_channels=1, image_size=8, width=0.2)
    eisnn.ei_init_(model, x, generator=draw)
    optimiser = make_optimiser(model, OptimiserConfig(lr=0.05))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # too much for float16 at first
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(x).float(), labels)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        losses.append(loss.item())
        for name, p in model.named_parameters():
            assert p.isfinite().all(), name
            assert name.endswith("bias") or (p >= 0).all(), name
    assert scaler.get_scale() < 2.0**40
    assert losses[-1] < 0.8 * losses[0]
