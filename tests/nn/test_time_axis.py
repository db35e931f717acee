"""Presenting inputs over time, and modules that know no time."""

import torch
from torch import nn

from eisnn.nn import TimeWise, present, time_first


def test_a_static_input_is_shown_unchanged_and_without_a_copy() -> None:
    images = torch.rand(2, 3, 4, 5)
    shown = present(images, 6)
    assert shown.shape == (6, 2, 3, 4, 5)
    assert all(torch.equal(step, images) for step in shown)
    assert shown.data_ptr() == images.data_ptr()


def test_frames_become_time_first() -> None:
    frames = torch.rand(2, 5, 3, 4, 4)
    assert torch.equal(time_first(frames)[3, 1], frames[1, 3])


def test_timewise_applies_modules_to_every_step() -> None:
    conv = nn.Conv2d(3, 4, 3)
    x = torch.rand(5, 2, 3, 6, 6)
    out = TimeWise(conv, nn.ReLU())(x)
    for t in range(5):
        torch.testing.assert_close(out[t], conv(x[t]).relu())


def test_timewise_batch_statistics_are_over_time_and_batch_together() -> None:
    x = torch.rand(5, 2, 3)
    out = TimeWise(nn.BatchNorm1d(3, affine=False))(x)
    flat = x.reshape(10, 3)
    expected = (flat - flat.mean(0)) / (flat.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(out.reshape(10, 3), expected)
