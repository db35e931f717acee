"""The statistics and formulas of E-I Init: recorded numbers, the oracle, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracle
from eisnn.functional import InputMoments, inhibitory_gain, input_moments, weight_scale
from golden import Golden

RECORDED = Golden("init_stats")
CASES = {case["name"]: case for case in RECORDED.meta["cases"]}


@pytest.mark.parametrize("name", CASES)
def test_reproduces_the_recorded_statistics(name: str) -> None:
    x, fan_in = RECORDED[f"{name}.x"], int(RECORDED[f"{name}.fan_in"])
    moments = input_moments(x)
    for prefix, rel in (("f64.", 1e-12), ("", 1e-5)):  # ours are float64 from float32 input too

        def expected(key: str, prefix: str = prefix) -> float:
            return RECORDED[f"{name}.{prefix}{key}"].flatten()[0].item()

        assert moments.mean == pytest.approx(expected("E_x"), rel=rel)
        assert moments.mean_square == pytest.approx(expected("E_x_square"), rel=rel)
        assert moments.variance == pytest.approx(expected("Var_x"), rel=rel)
        assert weight_scale(moments, fan_in) == pytest.approx(expected("exp_scale"), rel=rel)
        assert inhibitory_gain(moments, fan_in) == pytest.approx(expected("gain_i"), rel=rel)


@pytest.mark.parametrize("name", CASES)
def test_recorded_weights_are_exponential_draws_of_our_scale(name: str) -> None:
    scale = weight_scale(input_moments(RECORDED[f"{name}.x"]), int(RECORDED[f"{name}.fan_in"]))
    generator = np.random.default_rng(CASES[name]["weight_seed"])
    for key in ("weight_ee", "weight_ie"):
        recorded = RECORDED[f"{name}.{key}"]
        drawn = torch.from_numpy(generator.exponential(scale, tuple(recorded.shape)))
        torch.testing.assert_close(drawn.float(), recorded, rtol=1e-5, atol=0)


@given(
    shape=st.sampled_from([(2, 1), (5, 7), (3, 2, 4, 3), (9, 4)]),
    scale=st.sampled_from([1e-3, 1.0, 255.0]),
    seed=st.integers(0, 10_000),
)
def test_moments_equal_the_oracle(shape: tuple[int, ...], scale: float, seed: int) -> None:
    x = scale * torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    expected = oracle.moments(x.double().numpy())
    moments = input_moments(x)
    assert moments == pytest.approx(expected, rel=1e-10)
    for d in (1, 27):
        assert weight_scale(moments, d) == pytest.approx(oracle.init_scale(*expected, d))
        assert inhibitory_gain(moments, d) == pytest.approx(oracle.init_gain(*expected, d))


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("d", [1, 9, 576, 4608])
def test_gain_for_spikes(p: float, d: int) -> None:
    spikes = InputMoments(mean=p, mean_square=p, variance=p * (1 - p))
    assert inhibitory_gain(spikes, d) == pytest.approx(math.sqrt((2 - p) / (d * p)))
    assert weight_scale(spikes, d) == pytest.approx(math.sqrt((1 - p) / (d * (2 - p))))


def test_the_variance_is_per_feature_and_unbiased() -> None:
    x = torch.tensor([[0.0, 10.0], [2.0, 10.0]])  # features differ, samples hardly
    moments = input_moments(x)
    assert moments.variance == 1.0  # mean of 2 and 0
    assert moments.mean == 5.5
    assert moments.mean_square == 51.0


def test_low_precision_and_integers_are_measured_in_float64() -> None:
    x = torch.rand(4096, 8).bfloat16()
    assert input_moments(x) == pytest.approx(oracle.moments(x.double().numpy()), rel=1e-10)
    assert input_moments(torch.tensor([[0], [2]])) == (1.0, 2.0, 2.0)


def test_a_constant_feature_has_a_variance_of_exactly_zero() -> None:
    x = torch.full((7, 3), 0.1)  # its computed variance is about 1e-34
    assert input_moments(x).variance == 0.0


@pytest.mark.parametrize("shape", [(1, 4), (0, 4), (5, 0)])
def test_too_few_samples(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"at least 2 samples.*" + str(shape[0])):
        input_moments(torch.rand(shape))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite(bad: float) -> None:
    x = torch.rand(4, 4)
    x[1, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        input_moments(x)


def test_negative() -> None:
    x = torch.rand(4, 4)
    x[1, 2] = -0.5
    with pytest.raises(ValueError, match=r">= 0.*-0\.5 to .*\[0, 1\]"):
        input_moments(x)


def test_silent_and_constant_inputs() -> None:
    silent, constant = input_moments(torch.zeros(4, 4)), input_moments(torch.full((4, 4), 0.1))
    with pytest.raises(ValueError, match="silent"):
        weight_scale(silent, 4)
    with pytest.raises(ValueError, match="silent"):
        inhibitory_gain(silent, 4)
    with pytest.raises(ValueError, match="constant"):
        weight_scale(constant, 4)
