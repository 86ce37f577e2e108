"""The kernel of a training step for GPUs, in Triton: fused.cpp is its twin and says what is computed.

A program holds a tile (corner, position, channel) of one step and goes through all steps, membranes in registers. A
position is a sample's row and column, in front of a pool one of four corners of what is pooled. The membranes that the
backward pass needs, one per step, stay in registers as well, hence the loops over a number of steps that is known when
they are compiled. Memory that an unset flag leaves unread may be any. Run so far in Triton's interpreter, and compiled
for GPUs, but on none.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def places(count, channels, height, width, POOL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Of this program's tile: its channels, where its values lie in a step and in the pooled one, which are there."""
    position = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[None, :, None]
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, None, :]
    pooled = position * channels + channel
    there = (position < count) & (channel < channels)
    at = pooled
    if POOL:
        corner = tl.arange(0, 4)[:, None, None]
        row, column = position // (width // 2), position % (width // 2)
        sample, row = row // (height // 2), row % (height // 2)
        line = sample * height + 2 * row + corner // 2
        at = (line * width + 2 * column + corner % 2) * channels + channel
    return channel, at, pooled, there


@triton.jit
def surrogate(x, KIND: tl.constexpr):
    """The surrogates of surrogate.py, at the distance x of the membrane from the threshold."""
    if KIND == "atan":
        return 1.0 / (1.0 + 9.8696044 * (x * x))
    elif KIND == "sigmoid":  # noqa: RET505  (the compiler drops other branches only behind an else)
        e = tl.exp(-4.0 * tl.abs(x))
        return 4.0 * e / ((1.0 + e) * (1.0 + e))
    elif KIND == "triangle":
        return tl.maximum(0.0, 1.0 - tl.abs(x))
    else:
        return tl.where(tl.abs(x) < 0.5, 1.0, 0.0)


@triton.jit
def charged(v, x, residual, scale, shift, decay, at, still, there, ADD: tl.constexpr):
    """h = decay * v + current, for a step at `at` of the residual current and at `still` of x."""
    current = scale * tl.load(x + still, mask=there, other=0.0).to(tl.float32) + shift
    if ADD:
        current += tl.load(residual + at, mask=there, other=0.0).to(tl.float32)
    return decay * v + current


@triton.jit
def left(h, threshold, ZERO: tl.constexpr):
    """The membrane behind the reset."""
    if ZERO:
        return tl.where(h > threshold, 0.0, h)
    else:  # noqa: RET505
        return tl.where(h > threshold, h - threshold, h)


@triton.jit
def forward(
    x,
    residual,
    scale,
    shift,
    spikes,
    rates,
    slopes,
    size,
    pooled_size,
    count,
    channels,
    height,
    width,
    decay,
    threshold,
    STEPS: tl.constexpr,
    STILL: tl.constexpr,
    ADD: tl.constexpr,
    RATED: tl.constexpr,
    POOL: tl.constexpr,
    ZERO: tl.constexpr,
    DETACHED: tl.constexpr,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Spikes of all steps; `RATED` also their mean over time and its derivative by a constant current.

    `size` and `pooled_size` are the values of a step, `count` the positions of a pooled one. The derivative is that of
    `sensitivity` in rate.py.
    """
    CORNERS: tl.constexpr = 4 if POOL else 1
    channel, at, pooled, there = places(count, channels, height, width, POOL, ROWS, COLUMNS)
    a = tl.load(scale + channel, mask=channel < channels, other=0.0)
    b = tl.load(shift + channel, mask=channel < channels, other=0.0)
    v = tl.zeros((CORNERS, ROWS, COLUMNS), tl.float32)
    tangent, total, fired = v, v, v
    step, out = at, pooled  # moved by sums: products of steps and sizes may be beyond 32 bits
    for _ in tl.static_range(STEPS):
        h = charged(v, x, residual, a, b, decay, step, at if STILL else step, there, ADD)
        s = tl.where(h > threshold, 1.0, 0.0)
        mean = tl.sum(s, 0, keep_dims=True) / CORNERS
        tl.store(spikes + out, mean.to(spikes.dtype.element_ty), mask=there)
        step, out = step + size, out + pooled_size
        v = left(h, threshold, ZERO)
        if RATED:
            g = surrogate(h - threshold, KIND)
            now = decay * tangent + 1.0
            through = 1.0 - s if ZERO else tl.full((CORNERS, ROWS, COLUMNS), 1.0, tl.float32)
            if not DETACHED:
                through -= (h if ZERO else threshold) * g
            total += now * g
            tangent = now * through
            fired += s
    if RATED:
        mean = tl.sum(fired, 0, keep_dims=True) / (CORNERS * STEPS)
        tl.store(rates + pooled, mean.to(rates.dtype.element_ty), mask=there)
        tl.store(slopes + at, (total / STEPS).to(slopes.dtype.element_ty), mask=there)


@triton.jit
def added(d, product, sums, products, channels, COLUMNS: tl.constexpr):
    """Keep the tile's sums by channel, of d = dL/d(current) and of d * (x - mean), both 0 where nothing is."""
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    place = tl.program_id(0).to(tl.int64) * channels + channel
    tl.store(sums + place, tl.sum(tl.sum(d, 0), 0), mask=channel < channels)
    tl.store(products + place, tl.sum(tl.sum(product, 0), 0), mask=channel < channels)


@triton.jit
def sweep(
    x,
    residual,
    scale,
    shift,
    mean,
    grad,
    by_current,
    by_x,
    sums,
    products,
    size,
    pooled_size,
    count,
    channels,
    height,
    width,
    decay,
    threshold,
    STEPS: tl.constexpr,
    STILL: tl.constexpr,
    ADD: tl.constexpr,
    POOL: tl.constexpr,
    ZERO: tl.constexpr,
    DETACHED: tl.constexpr,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """dL/d(current) of all steps from dL/d(spikes), last step first: see `_sweep_back` in lif.py.

    `STILL` sums it over the steps, into `by_x`; then each step's own is kept only where a residual current asks for it.
    """
    CORNERS: tl.constexpr = 4 if POOL else 1
    channel, at, pooled, there = places(count, channels, height, width, POOL, ROWS, COLUMNS)
    a = tl.load(scale + channel, mask=channel < channels, other=0.0)
    b = tl.load(shift + channel, mask=channel < channels, other=0.0)
    middle = tl.load(mean + channel, mask=channel < channels, other=0.0)
    v = tl.zeros((CORNERS, ROWS, COLUMNS), tl.float32)
    after, whole, product = v, v, v
    before = ()
    step, out = at, pooled
    for _ in tl.static_range(STEPS):
        h = charged(v, x, residual, a, b, decay, step, at if STILL else step, there, ADD)
        before = before + (h,)
        v = left(h, threshold, ZERO)
        step, out = step + size, out + pooled_size
    for back in tl.static_range(STEPS):
        step, out = step - size, out - pooled_size
        h = before[STEPS - 1 - back]
        g = tl.load(grad + out, mask=there, other=0.0).to(tl.float32) / CORNERS
        if not DETACHED:
            g = g - (h if ZERO else threshold) * after
        kept = tl.where(h > threshold, 0.0, after) if ZERO else after
        d = g * surrogate(h - threshold, KIND) + kept
        after = decay * d
        whole += d
        if ADD or not STILL:
            tl.store(by_current + step, d.to(by_current.dtype.element_ty), mask=there)
        off = tl.load(x + (at if STILL else step), mask=there, other=0.0).to(tl.float32) - middle
        product += d * off
    if STILL:
        tl.store(by_x + at, whole.to(by_x.dtype.element_ty), mask=there)
    added(whole, product, sums, products, channels, COLUMNS)


@triton.jit
def rescale(
    x,
    mean,
    grad,
    slopes,
    by_current,
    sums,
    products,
    count,
    channels,
    height,
    width,
    POOL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """dL/d(current) from dL/d(rates), where `slopes` say what the neurons do to it."""
    channel, at, pooled, there = places(count, channels, height, width, POOL, ROWS, COLUMNS)
    g = tl.load(grad + pooled, mask=there, other=0.0).to(tl.float32) / (4 if POOL else 1)
    d = g * tl.load(slopes + at, mask=there, other=0.0).to(tl.float32)
    tl.store(by_current + at, d.to(by_current.dtype.element_ty), mask=there)
    off = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    off -= tl.load(mean + channel, mask=channel < channels, other=0.0)
    added(d, d * off, sums, products, channels, COLUMNS)


@triton.jit
def renormalise(x, mean, factor, level, along, d, by_x, count, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """dL/dx of the BatchNorm from d = dL/d(current): factor * d - level - along * (x - mean), over all positions."""
    channel, at, _, there = places(count, channels, 1, 1, False, ROWS, COLUMNS)
    off = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    off -= tl.load(mean + channel, mask=channel < channels, other=0.0)
    slope = tl.load(factor + channel, mask=channel < channels, other=0.0)
    slope *= tl.load(d + at, mask=there, other=0.0).to(tl.float32)
    slope -= tl.load(level + channel, mask=channel < channels, other=0.0)
    slope -= tl.load(along + channel, mask=channel < channels, other=0.0) * off
    tl.store(by_x + at, slope.to(by_x.dtype.element_ty), mask=there)
