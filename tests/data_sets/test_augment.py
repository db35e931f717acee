"""Augmentations against slow loops over samples, or against what defines them.

Where a result says which pixel of the input each of its pixels is, the input holds the pixel's
own number: ``numbered`` images.

Legend: B batch, T time, C channels, H / W height and width.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor
from torch.nn import functional as F

from eisnn.data import augmentation, evaluation_transform, list_augmentations
from eisnn.data.augment import (
    cut_out,
    erase,
    horizontal_flip,
    one_of,
    random_crop,
    random_resized_crop,
    resize,
    roll,
    rotate,
)
from eisnn.data.color import color_jitter, grey, shift_hue

SHAPES = [(3, 8, 11), (1, 9, 9), (4, 2, 10, 7)]
EVENTS = ("cifar10-dvs", "dvs-gesture")


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def numbered(batch: int, *shape: int) -> Tensor:
    """Samples that are all the same, and whose pixels have numbers from 1."""
    height, width = shape[-2:]
    return torch.arange(1.0, height * width + 1).view(height, width).expand(batch, *shape).clone()


@pytest.mark.parametrize("shape", SHAPES)
def test_random_crop(shape: tuple[int, ...]) -> None:
    x = torch.rand(200, *shape)
    result = random_crop(x, seeded(), padding=2)
    seen = set()
    height, width = shape[-2:]
    for before, after in zip(F.pad(x, (2,) * 4), result, strict=True):
        shifts = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if torch.equal(before[..., i : i + height, j : j + width], after)
        ]
        assert len(shifts) == 1
        seen.add(shifts[0])
    assert len(seen) == 25


@pytest.mark.parametrize("shape", SHAPES)
def test_horizontal_flip(shape: tuple[int, ...]) -> None:
    x = torch.rand(400, *shape)
    result = horizontal_flip(x, seeded())
    flipped = [torch.equal(after, before.flip(-1)) for before, after in zip(x, result, strict=True)]
    same = [torch.equal(after, before) for before, after in zip(x, result, strict=True)]
    assert all(a != b for a, b in zip(flipped, same, strict=True))
    assert 150 < sum(flipped) < 250
    assert torch.equal(horizontal_flip(x, seeded(), p=0), x)
    assert torch.equal(horizontal_flip(x, seeded(), p=1), x.flip(-1))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 30)])
def test_erase(height: int, width: int) -> None:
    x = torch.rand(400, 3, height, width) / 2 + 2  # so that no grey level is an old value
    result = erase(x, seeded())
    erased, areas, levels = 0, [], set()
    for before, after in zip(x, result, strict=True):
        changed = (before != after).all(0)
        assert torch.equal(changed, (before != after).any(0))
        if not changed.any():
            continue
        erased += 1
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        h, w = len(rows), len(columns)
        assert int(changed.sum()) == h * w
        assert int(rows[-1] - rows[0] + 1) == h
        assert int(columns[-1] - columns[0] + 1) == w
        area = height * width
        assert 0.02 * area <= (h + 0.5) * (w + 0.5)
        assert (h - 0.5) * (w - 0.5) <= 0.4 * area
        assert (w + 0.5) / (h - 0.5) >= 0.4
        assert (w - 0.5) / (h + 0.5) <= 2.5
        (level,) = after[:, changed].unique().tolist()
        assert 0 <= level < 1
        areas.append(h * w / area)
        levels.add(level)
    assert 150 < erased < 250
    assert len(levels) == erased
    assert min(areas) < 0.05
    assert max(areas) > 0.35


@pytest.mark.parametrize("shape", SHAPES)
def test_cut_out(shape: tuple[int, ...]) -> None:
    x = torch.rand(300, *shape) + 1
    result = cut_out(x, seeded(), side=4)
    height, width = shape[-2:]
    centres = set()
    for before, after in zip(x, result, strict=True):
        fits = []
        for i in range(height):
            for j in range(width):
                expected = before.clone()
                expected[..., max(i - 2, 0) : i + 2, max(j - 2, 0) : j + 2] = 0
                if torch.equal(expected, after):
                    fits.append((i, j))
        assert len(fits) == 1
        centres.add(fits[0])
    assert len(centres) > 0.9 * min(300, height * width)


@pytest.mark.parametrize("shape", SHAPES)
def test_roll(shape: tuple[int, ...]) -> None:
    x = torch.rand(200, *shape)
    result = roll(x, seeded(), limit=2)
    seen = set()
    for before, after in zip(x, result, strict=True):
        shifts = [
            (i, j)
            for i in range(-2, 3)
            for j in range(-2, 3)
            if torch.equal(before.roll((i, j), (-2, -1)), after)
        ]
        assert len(shifts) == 1
        seen.add(shifts[0])
    assert len(seen) == 25


@pytest.mark.parametrize("shape", SHAPES)
def test_rotate(shape: tuple[int, ...]) -> None:
    batch, (height, width) = 20, shape[-2:]
    x = torch.rand(batch, *shape) + 1
    result = rotate(x, seeded(3), degrees=30)
    angles = torch.rand((batch, 1, 1), generator=seeded(3)).flatten().mul(60).sub(30).tolist()
    assert min(angles) < -15
    assert max(angles) > 15
    wrong = 0
    for before, after, angle in zip(x, result, angles, strict=True):
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        for i in range(height):
            for j in range(width):
                y, z = i - (height - 1) / 2, j - (width - 1) / 2
                row = round(cos * y + sin * z + (height - 1) / 2)
                column = round(cos * z - sin * y + (width - 1) / 2)
                inside = 0 <= row < height and 0 <= column < width
                expected = before[..., row, column] if inside else torch.zeros(shape[:-2])
                wrong += not torch.equal(after[..., i, j], expected)
    assert wrong <= batch * height * width / 1000  # ties, decided by rounding


def test_a_quarter_turn() -> None:
    x = torch.rand(1, 2, 6, 6)
    draws = {seed: torch.rand(1, generator=seeded(seed)).item() for seed in range(2000)}
    for seed, turns in (
        (max(draws, key=draws.__getitem__), 1),
        (min(draws, key=draws.__getitem__), -1),
    ):
        assert torch.equal(rotate(x, seeded(seed), degrees=90), x.rot90(turns, (-2, -1)))


@pytest.mark.parametrize("area", [(0.08, 1), (0.5, 1), (1, 1)])
@pytest.mark.parametrize("size", [5, 16, 40])
def test_random_resized_crop_of_counts(area: tuple[float, float], size: int) -> None:
    height, width = 24, 20
    x = numbered(100, 2, 3, height, width)
    result = random_resized_crop(x, seeded(), size=size, area=area, mode="nearest")
    assert result.shape == (100, 2, 3, size, size)
    for sample in result:
        assert (sample == sample[:1, :1]).all()
        number = sample[0, 0].long() - 1
        rows, columns = number // width, number % width
        assert (rows == rows[:, :1]).all()
        assert (columns == columns[:1]).all()
        for index, full in ((rows[:, 0], height), (columns[0], width)):
            explained = [
                (start, length)
                for length in range(1, full + 1)
                for start in range(full - length + 1)
                if index.tolist()
                == [start + math.floor((i + 0.5) * length / size) for i in range(size)]
            ]
            assert explained


def test_random_resized_crop_takes_shapes_as_asked() -> None:
    height = width = 200
    x = numbered(500, 1, height, width)
    result = random_resized_crop(x, seeded(), size=200, area=(0.3, 0.6), mode="nearest")
    number = result[:, 0].long() - 1
    rows, columns = number[:, :, 0] // width, number[:, 0] % width
    h, w = (1 + index[:, -1] - index[:, 0] for index in (rows, columns))
    area = h * w / (height * width)
    ratio = w / h
    assert 0.29 < area.min() < 0.32
    assert 0.58 < area.max() < 0.61
    assert 0.74 < ratio.min() < 0.78
    assert 1.28 < ratio.max() < 1.35
    assert rows[:, 0].unique().numel() > 50
    assert int(rows.max()) == height - 1


@given(size=st.integers(1, 40), height=st.integers(1, 40), width=st.integers(1, 40))
def test_resize_of_images(size: int, height: int, width: int) -> None:
    x = torch.rand(2, 3, height, width)
    expected = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(
        resize(x, size=size, mode="bilinear"), expected, atol=2e-6, rtol=1e-5
    )


@given(size=st.integers(1, 40), height=st.integers(1, 40), width=st.integers(1, 40))
def test_resize_of_counts(size: int, height: int, width: int) -> None:
    x = torch.rand(2, 3, height, width)
    rows = [math.floor((2 * i + 1) * height / (2 * size)) for i in range(size)]
    columns = [math.floor((2 * i + 1) * width / (2 * size)) for i in range(size)]
    assert torch.equal(resize(x, size=size, mode="nearest"), x[..., rows, :][..., columns])


def test_random_resized_crop_of_images() -> None:
    """The same rectangles as by nearest pixel, but interpolated."""
    x, side = torch.rand(50, 3, 24, 20), 16
    crop = partial(random_resized_crop, size=side, area=(0.2, 1))
    result = crop(x, seeded(), mode="bilinear")
    numbers = random_resized_crop(
        numbered(50, 1, 24, 20), seeded(), size=960, area=(0.2, 1), mode="nearest"
    )
    for before, after, number in zip(x, result, numbers.long() - 1, strict=True):
        rows, columns = number[0, :, 0] // 20, number[0, 0] % 20
        cut = before[None, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        expected = F.interpolate(
            cut, (side, side), mode="bilinear", antialias=True, align_corners=False
        )
        torch.testing.assert_close(after, expected[0], atol=2e-6, rtol=1e-5)


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match="mode must be 'nearest' or 'bilinear', got 'cubic'"):
        resize(torch.rand(1, 1, 4, 4), size=2, mode="cubic")


def test_one_of() -> None:
    changes = [lambda x, _: x + 1, lambda x, _: x + 2, lambda x, _: x + 3]
    result = one_of(torch.zeros(3000, 2, 3), seeded(), changes)
    assert (result == result[:, :1, :1]).all()
    assert all(900 < count < 1100 for count in result[:, 0, 0].long().bincount()[1:].tolist())


# Colour


def per_pixel(x: Tensor, change: Callable[..., tuple[float, float, float]]) -> Tensor:
    result = x.clone()
    for image in result:
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                image[:, i, j] = torch.tensor(change(*image[:, i, j].tolist()))
    return result


@given(shift=st.floats(-0.5, 0.5), seed=st.integers(0, 99), levels=st.sampled_from([2, 3, 256]))
def test_shift_hue(shift: float, seed: int, levels: int) -> None:
    x = torch.randint(levels, (1, 3, 4, 4), generator=seeded(seed)) / (levels - 1)

    def change(*rgb: float) -> tuple[float, float, float]:
        h, s, v = colorsys.rgb_to_hsv(*rgb)
        return colorsys.hsv_to_rgb((h + shift) % 1, s, v)

    result = shift_hue(x, torch.full((1, 1, 1, 1), shift))
    torch.testing.assert_close(result, per_pixel(x, change), atol=1e-5, rtol=0)


@pytest.mark.parametrize("amount", ["brightness", "contrast", "saturation"])
def test_blends(amount: str) -> None:
    amounts = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0} | {amount: 0.4}
    x = torch.rand(100, 3, 6, 6) * 0.5 + 0.25
    result = color_jitter(x, seeded(), **amounts)
    factors = []
    for before, after in zip(x, result, strict=True):
        luma = 0.299 * before[0] + 0.587 * before[1] + 0.114 * before[2]
        other = {
            "brightness": torch.zeros(()),
            "contrast": luma.mean(),
            "saturation": luma,
        }[amount]
        inside = (after > 0) & (after < 1) & ((before - other).abs() > 0.05)
        factor = ((after - other) / (before - other))[inside].median()
        expected = (other + factor * (before - other)).clamp(0, 1)
        torch.testing.assert_close(after, expected, atol=1e-4, rtol=0)
        factors.append(float(factor))
    assert 0.59 < min(factors) < 0.65
    assert 1.35 < max(factors) < 1.41


def test_color_jitter_without_amounts_changes_nothing() -> None:
    x = torch.rand(8, 3, 6, 6)
    result = color_jitter(x, seeded(), brightness=0, contrast=0, saturation=0, hue=0)
    torch.testing.assert_close(result, x, atol=1e-6, rtol=0)


def test_color_jitter_draws_an_order() -> None:
    x = torch.rand(1, 3, 6, 6).expand(64, -1, -1, -1)
    jitter = partial(color_jitter, brightness=0.9, contrast=0.9, saturation=0.9, hue=0.4)
    assert len({jitter(x[:1], seeded(seed)).sum().item() for seed in range(64)}) == 64
    torch.testing.assert_close(grey(grey(x).expand(-1, 3, -1, -1)), grey(x))


def test_color_jitter_of_grey_images() -> None:
    with pytest.raises(ValueError, match=r"need images \[B, 3, H, W\], got \[2, 1, 4, 4\]"):
        color_jitter(
            torch.rand(2, 1, 4, 4), seeded(), brightness=0, contrast=0, saturation=0, hue=0
        )


# The pipelines


def batch_for(name: str, batch: int = 12) -> Tensor:
    if name in EVENTS:
        return torch.randint(0, 40, (batch, 3, 2, 128, 128), generator=seeded(9)).float()
    side = 64 if name == "tiny-imagenet" else 32
    return torch.rand(batch, 3, side, side, generator=seeded(9))


@pytest.mark.parametrize("name", list_augmentations())
def test_a_pipeline_is_drawn_from_its_generator(name: str) -> None:
    x = batch_for(name)
    original = x.clone()
    torch.manual_seed(1)
    first = augmentation(name)(x, seeded(5))
    torch.manual_seed(2)
    global_state = torch.get_rng_state()
    assert torch.equal(first, augmentation(name)(x, seeded(5)))
    assert torch.equal(torch.get_rng_state(), global_state)
    assert torch.equal(x, original)
    if name != "none":
        assert not torch.equal(first, augmentation(name)(x, seeded(6)))
        generator = seeded(5)
        augmentation(name)(x, generator)
        assert not torch.equal(first, augmentation(name)(x, generator))


@pytest.mark.parametrize("name", list_augmentations())
def test_a_pipeline_keeps_the_range(name: str) -> None:
    x = batch_for(name, 64 if name not in EVENTS else 12)
    evaluated = evaluation_transform(name)(x)
    for seed in range(3):
        result = augmentation(name)(x, seeded(seed))
        assert result.dtype == torch.float32
        assert result.shape == evaluated.shape
        assert result.min() >= 0
        if name in EVENTS:
            assert torch.equal(result, result.round())
            assert set(result.unique().tolist()) <= {0, *x.unique().tolist()}
            assert result.shape[-2:] == (48, 48)
        else:
            assert result.max() <= 1
            assert result.shape[-2:] == (32, 32)


@pytest.mark.parametrize("name", [*EVENTS, "flip"])
def test_all_frames_of_a_sample_are_changed_in_the_same_way(name: str) -> None:
    x = numbered(40, 5, 2, 128, 128)
    result = augmentation(name)(x, seeded())
    assert (result == result[:, :1, :1]).all()
    different = {tuple(sample[0, 0, 20].tolist()) for sample in result}
    assert len(different) == 2 if name == "flip" else len(different) > 35


@pytest.mark.parametrize("name", list_augmentations())
def test_samples_do_not_mix(name: str) -> None:
    """Each result is made from its own sample: one that is empty stays so."""
    x = batch_for(name)
    x[::2] = 0
    result = augmentation(name)(x, seeded())
    if name in ("cifar", "tiny-imagenet"):  # one grey level at most
        assert all(len(sample.unique()) <= 2 for sample in result[::2])
    else:
        assert not result[::2].any()
    assert all(sample.any() for sample in result[1::2])


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("cifar", (2, 4, 3, 32, 32), "this is for images"),
        ("tiny-imagenet", (2, 4, 3, 32, 32), "this is for images"),
        ("cifar10-dvs", (2, 3, 32, 32), "this is for event frames"),
        ("dvs-gesture", (2, 3, 32, 32), "this is for event frames"),
    ],
)
def test_batches_of_another_kind(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        augmentation(name)(torch.rand(shape), seeded())
    if name != "cifar":
        with pytest.raises(ValueError, match=message):
            evaluation_transform(name)(torch.rand(shape))


@pytest.mark.parametrize("lookup", [augmentation, evaluation_transform])
def test_unknown_names(lookup: Any) -> None:
    with pytest.raises(ValueError, match=r"no augmentation 'cifra'. Did you mean 'cifar'\?"):
        lookup("cifra")
