"""The kernels of :mod:`eisnn.ops.triton_backend`. Imports Triton: to be imported at first use.

Arithmetic is in float32, one rounding for each operation of the readable form, in its order:
divisions are ``tl.div_rn`` and the launches forbid fused multiply-adds. Given the same divisive
current, spikes are then the same as plain torch's.

A program holds a block of ``[ROWS, CHANNELS]`` neurons over all time steps. Offsets are of 64
bits; sizes that change with the batch are not specialised, so that kernels are compiled once
for a layer. ``T`` is a constant, but its loops stay loops.

Legend: a row is one position of one sample of the batch, rows = B P; T time, P positions,
E excitatory channels, C those of the currents; ``CONSTANT``: they are the same at each step.
"""

# Triton reads these functions' source: annotations are its own, ``tl.constexpr`` alone, and
# must not be strings.
# mypy: disable-error-code="import-untyped,import-not-found"
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import triton
import triton.language as tl

__all__ = ["backward", "forward", "smallest_positive"]


@triton.jit
def smallest_positive(i_div, out, size, chunks, BLOCK: tl.constexpr):
    """``out [samples, chunks]``: of each chunk of ``i_div [samples, size]``; +inf without any."""
    sample = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1).to(tl.int64)
    at = chunk * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(i_div + sample * size + at, mask=at < size, other=0.0)
    least = tl.min(tl.where(x > 0, x, float("inf")), axis=0)  # NaN is not positive
    tl.store(out + sample * chunks + chunk, least)


@triton.jit
def _divisor(i_div, smallest, mask):
    x = tl.load(i_div, mask=mask, other=1.0)
    return tl.where(x <= 0, smallest, x)  # NaN stays NaN


@triton.jit
def _quotient(currents, divisor, mask):
    return tl.div_rn(tl.load(currents, mask=mask, other=0.0).to(tl.float32), divisor)


@triton.jit
def _fired(h, theta):
    z = h - theta
    return tl.where(z == z, (z >= 0).to(tl.float32), z)


@triton.jit
def _slope(z, width, SURROGATE: tl.constexpr):
    """Derivative of the surrogate."""
    if SURROGATE == "Sigmoid":
        e = tl.exp(-tl.abs(width * z))
        slope = width * e / ((1.0 + e) * (1.0 + e))
    elif SURROGATE == "ArcTan":
        u = 1.5707963267948966 * width * z
        slope = 0.5 * width / (1.0 + u * u)
    else:
        slope = tl.where(z >= 0, 1.0, width)
    return slope


@triton.jit(do_not_specialize=["rows", "batch"])
def forward(
    currents,  # [steps, rows, C]
    i_div,  # [steps, rows, E]
    gain,  # [E]
    bias,  # [E]
    smallest,  # [steps, batch]
    spikes,  # [T, rows, E]
    rows,
    batch,
    P,
    E,
    C,
    decay,
    theta,
    T: tl.constexpr,
    CONSTANT: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Spikes."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    mask = (row < rows)[:, None] & (channel < E)[None, :]
    wide = row.to(tl.int64)[:, None]
    at_c = wide * C + channel[None, :]
    at_e = wide * E + channel[None, :]
    jump = rows.to(tl.int64)  # from one step to the next
    sample = row // P
    g = tl.load(gain + channel, mask=channel < E, other=0.0)[None, :]
    b = tl.load(bias + channel, mask=channel < E, other=0.0)[None, :]

    v = tl.zeros([ROWS, CHANNELS], dtype=tl.float32)
    if CONSTANT:
        least = tl.load(smallest + sample, mask=row < rows, other=1.0)[:, None]
        x = g * _quotient(currents + at_c, _divisor(i_div + at_e, least, mask), mask) + b
    for t in range(T):
        if not CONSTANT:
            least = tl.load(smallest + t * batch + sample, mask=row < rows, other=1.0)[:, None]
            divisor = _divisor(i_div + (t * jump * E + at_e), least, mask)
            x = g * _quotient(currents + (t * jump * C + at_c), divisor, mask) + b
        h = decay * v + x
        s = _fired(h, theta)
        v = h - theta * s
        tl.store(spikes + (t * jump * E + at_e), s.to(spikes.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows", "batch"])
def backward(
    grad,  # [T, rows, E]
    currents,  # [steps, rows, C]
    i_div,  # [steps, rows, E]
    gain,  # [E]
    bias,  # [E]
    smallest,  # [steps, batch]
    h_seq,  # [T, rows, E], scratch; may be d_div
    d_currents,  # [steps, rows, C], channels below E are written
    d_div,  # [steps, rows, E]
    d_gain,  # [row blocks, E]
    d_bias,  # [row blocks, E]
    rows,
    batch,
    P,
    E,
    C,
    decay,
    theta,
    width,
    SURROGATE: tl.constexpr,
    T: tl.constexpr,
    CONSTANT: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Gradients; the potentials once more, then from the last step to the first."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    mask = (row < rows)[:, None] & (channel < E)[None, :]
    wide = row.to(tl.int64)[:, None]
    at_c = wide * C + channel[None, :]
    at_e = wide * E + channel[None, :]
    jump = rows.to(tl.int64)
    sample = row // P
    g = tl.load(gain + channel, mask=channel < E, other=0.0)[None, :]
    b = tl.load(bias + channel, mask=channel < E, other=0.0)[None, :]

    v = tl.zeros([ROWS, CHANNELS], dtype=tl.float32)
    if CONSTANT:
        least = tl.load(smallest + sample, mask=row < rows, other=1.0)[:, None]
        divisor = _divisor(i_div + at_e, least, mask)
        q = _quotient(currents + at_c, divisor, mask)
        x = g * q + b
    for t in range(T):
        if not CONSTANT:
            least = tl.load(smallest + t * batch + sample, mask=row < rows, other=1.0)[:, None]
            divisor = _divisor(i_div + (t * jump * E + at_e), least, mask)
            x = g * _quotient(currents + (t * jump * C + at_c), divisor, mask) + b
        h = decay * v + x
        v = h - theta * _fired(h, theta)
        tl.store(h_seq + (t * jump * E + at_e), h, mask=mask)

    tl.debug_barrier()  # what a thread reads below, another one may have written above
    d_h = tl.zeros([ROWS, CHANNELS], dtype=tl.float32)
    sum_x = tl.zeros([ROWS, CHANNELS], dtype=tl.float32)  # over time, of the gradient of x
    sum_xq = tl.zeros([ROWS, CHANNELS], dtype=tl.float32)
    for i in range(T):
        t = T - 1 - i
        z = tl.load(h_seq + (t * jump * E + at_e), mask=mask, other=0.0) - theta
        d_s = tl.load(grad + (t * jump * E + at_e), mask=mask, other=0.0).to(tl.float32)
        d_h = _slope(z, width, SURROGATE) * d_s + decay * d_h
        sum_x += d_h
        if not CONSTANT:
            least = tl.load(smallest + t * batch + sample, mask=row < rows, other=1.0)[:, None]
            divisor = _divisor(i_div + (t * jump * E + at_e), least, mask)
            q = _quotient(currents + (t * jump * C + at_c), divisor, mask)
            sum_xq += d_h * q
            d = tl.div_rn(d_h * g, divisor)
            out = d_currents + (t * jump * C + at_c)
            tl.store(out, d.to(d_currents.dtype.element_ty), mask=mask)
            tl.store(d_div + (t * jump * E + at_e), -(d * q), mask=mask)
    if CONSTANT:
        sum_xq = sum_x * q
        d = tl.div_rn(sum_x * g, divisor)
        tl.store(d_currents + at_c, d.to(d_currents.dtype.element_ty), mask=mask)
        tl.store(d_div + at_e, -(d * q), mask=mask)

    at = tl.program_id(0).to(tl.int64) * E + channel
    tl.store(d_gain + at, tl.sum(sum_xq, axis=0), mask=channel < E)
    tl.store(d_bias + at, tl.sum(sum_x, axis=0), mask=channel < E)
