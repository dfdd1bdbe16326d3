"""The running maximum as a Triton kernel: all time steps in one launch.

``carried`` and ``larger`` say the same as reference_running_max.py and csrc/running_max_rule.h.
"""
# What follows has the types of Triton's language, which mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def replaced(rows, i: tl.constexpr, row):
    """The tuple of rows, with another row at place i."""
    changed = rows[:i]
    changed += (row,)
    return changed + rows[i + 1 :]


@triton.jit
def carried(n, theta):
    """What n spikes carry; a silent neuron carries 0."""
    return tl.where(theta == float("inf"), 0.0, n.to(tl.float32) * theta)


@triton.jit
def larger(c, most):
    """The larger of c and the maximum so far; the first of equals stays, and NaN stays."""
    return tl.where((c > most) | (c != c), c, most)


@triton.jit
def value_of(total, theta, CARRIES: tl.constexpr):
    """What the windows compare, given the inputs' totals."""
    return carried(total, theta) if CARRIES else total


@triton.jit
def first_tap(o, size, output, stride, padding, ADAPTIVE: tl.constexpr):
    """Where window o would begin along one dimension, were there no end to the input."""
    return o * size // output if ADAPTIVE else o * stride - padding


@triton.jit
def tap_of(o, first, k, size, output, dilation, ADAPTIVE: tl.constexpr):
    """Where tap k of window o lies along one dimension, and whether it is one of its inputs."""
    place = first + k * dilation
    inside = (place >= 0) & (place < size)
    if ADAPTIVE:
        inside = inside & (place * output < (o + 1) * size)
    return place, inside


@triton.jit
def send(spikes, place, live, change, theta):
    """Writes by how much the maxima changed; theta is that of counted spikes."""
    sent = spikes.dtype.element_ty
    if change.dtype == tl.int32 and sent != tl.int8:
        tl.store(spikes + place, carried(change, theta).to(sent), mask=live)
    else:
        tl.store(spikes + place, change.to(sent), mask=live)


@triton.jit
def load_step(x, x_step, t, places, insides, TAPS: tl.constexpr):
    """The inputs of time step t, one row per tap."""
    rows = ()
    for k in tl.static_range(TAPS):
        rows += (tl.load(x + tl.cast(t, tl.int64) * x_step + places[k], mask=insides[k]),)
    return rows


@triton.jit(do_not_specialize=["time_steps"])
def snm_running_max_kernel(
    x,
    x_step,
    threshold,
    channel_step,
    depth_step,
    height_step,
    width_step,
    total_in,
    total_out,
    spikes,
    spikes_step,
    scratch,
    time_steps,
    channels,
    depth,
    height,
    width,
    out_depth,
    out_height,
    out_width,
    stride_depth,
    stride_height,
    stride_width,
    pad_depth,
    pad_height,
    pad_width,
    windows,
    KERNEL_DEPTH: tl.constexpr,
    KERNEL_HEIGHT: tl.constexpr,
    KERNEL_WIDTH: tl.constexpr,
    DILATION_DEPTH: tl.constexpr,
    DILATION_HEIGHT: tl.constexpr,
    DILATION_WIDTH: tl.constexpr,
    ADAPTIVE_DEPTH: tl.constexpr,
    ADAPTIVE_HEIGHT: tl.constexpr,
    ADAPTIVE_WIDTH: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    CARRIES: tl.constexpr,
    COUNTS: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Runs BLOCK windows over all time steps; threshold, total_in and scratch may be None.

    CARRIES: thresholds differ within windows. COUNTS: inputs are spikes. TAPS: of a window, where
    their totals fit into registers; 0 where they lie in scratch, [tap][window].
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < windows
    rest = n
    channel = tl.zeros([BLOCK], tl.int64)
    if CHANNELS_LAST:
        channel = rest % channels
        rest = rest // channels
    ow = rest % out_width
    rest = rest // out_width
    oh = rest % out_height
    rest = rest // out_height
    od = rest % out_depth
    rest = rest // out_depth
    inputs = depth.to(tl.int64) * height * width
    if CHANNELS_LAST:
        base = rest * inputs * channels + channel
        position = channels
    else:
        base = rest * inputs
        position = 1
        channel = rest % channels
    first_d = first_tap(od, depth, out_depth, stride_depth, pad_depth, ADAPTIVE_DEPTH)
    first_h = first_tap(oh, height, out_height, stride_height, pad_height, ADAPTIVE_HEIGHT)
    first_w = first_tap(ow, width, out_width, stride_width, pad_width, ADAPTIVE_WIDTH)
    total_type: tl.constexpr = tl.int32 if COUNTS else tl.float32
    value_type: tl.constexpr = tl.int32 if COUNTS and not CARRIES else tl.float32
    neutral: tl.constexpr = -2147483648 if COUNTS and not CARRIES else float("-inf")
    shared = tl.zeros([BLOCK], tl.float32)
    if COUNTS and not CARRIES:
        shared = tl.load(threshold + channel * channel_step, mask=live, other=1.0)

    if TAPS > 0:
        places, insides, thetas, totals = (), (), (), ()
        last = tl.full([BLOCK], neutral, value_type)
        for k in tl.static_range(TAPS):
            d, in_d = tap_of(
                od,
                first_d,
                k // (KERNEL_HEIGHT * KERNEL_WIDTH),
                depth,
                out_depth,
                DILATION_DEPTH,
                ADAPTIVE_DEPTH,
            )
            h, in_h = tap_of(
                oh,
                first_h,
                k // KERNEL_WIDTH % KERNEL_HEIGHT,
                height,
                out_height,
                DILATION_HEIGHT,
                ADAPTIVE_HEIGHT,
            )
            w, in_w = tap_of(
                ow, first_w, k % KERNEL_WIDTH, width, out_width, DILATION_WIDTH, ADAPTIVE_WIDTH
            )
            inside = live & in_d & in_h & in_w
            place = base + ((d * height + h) * width + w) * position
            theta = shared
            if CARRIES:
                at = channel * channel_step + d * depth_step + h * height_step + w * width_step
                theta = tl.load(threshold + at, mask=inside, other=1.0)
            total = tl.zeros([BLOCK], total_type)
            if total_in is not None:
                total = tl.load(total_in + place, mask=inside, other=0)
            value = tl.where(inside, value_of(total, theta, CARRIES), neutral)
            last = larger(value, last)
            places += (place,)
            insides += (inside,)
            thetas += (theta,)
            totals += (total,)
        rows = load_step(x, x_step, 0, places, insides, TAPS)
        for t in range(time_steps):
            most = tl.full([BLOCK], neutral, value_type)
            for k in tl.static_range(TAPS):
                total = totals[k] + rows[k].to(total_type)
                value = tl.where(insides[k], value_of(total, thetas[k], CARRIES), neutral)
                most = larger(value, most)
                totals = replaced(totals, k, total)
                # The next step's input is asked for where this one's place is free.
                later = tl.cast(t + 1, tl.int64) * x_step
                wanted = tl.where(t + 1 < time_steps, insides[k], False)
                rows = replaced(rows, k, tl.load(x + later + places[k], mask=wanted))
            send(spikes, tl.cast(t, tl.int64) * spikes_step + n, live, most - last, shared)
            last = most
        for k in tl.static_range(TAPS):
            # Windows that share an input write the same to it.
            tl.store(total_out + places[k], totals[k], mask=insides[k])
    else:
        last = tl.full([BLOCK], neutral, value_type)
        # Step -1 stands for what was sent before.
        for t in range(-1, time_steps):
            most = tl.full([BLOCK], neutral, value_type)
            for k in range(KERNEL_DEPTH * KERNEL_HEIGHT * KERNEL_WIDTH):
                d, in_d = tap_of(
                    od,
                    first_d,
                    k // (KERNEL_HEIGHT * KERNEL_WIDTH),
                    depth,
                    out_depth,
                    DILATION_DEPTH,
                    ADAPTIVE_DEPTH,
                )
                h, in_h = tap_of(
                    oh,
                    first_h,
                    k // KERNEL_WIDTH % KERNEL_HEIGHT,
                    height,
                    out_height,
                    DILATION_HEIGHT,
                    ADAPTIVE_HEIGHT,
                )
                w, in_w = tap_of(
                    ow, first_w, k % KERNEL_WIDTH, width, out_width, DILATION_WIDTH, ADAPTIVE_WIDTH
                )
                inside = live & in_d & in_h & in_w
                place = base + ((d * height + h) * width + w) * position
                kept = scratch + tl.cast(k, tl.int64) * windows + n
                theta = shared
                if CARRIES:
                    at = channel * channel_step + d * depth_step + h * height_step + w * width_step
                    theta = tl.load(threshold + at, mask=inside, other=1.0)
                total = tl.zeros([BLOCK], total_type)
                if t < 0:
                    if total_in is not None:
                        total = tl.load(total_in + place, mask=inside, other=0)
                else:
                    now = tl.load(x + tl.cast(t, tl.int64) * x_step + place, mask=inside, other=0)
                    total = tl.load(kept, mask=inside, other=0) + now.to(total_type)
                tl.store(kept, total, mask=inside)
                if t + 1 == time_steps:
                    tl.store(total_out + place, total, mask=inside)
                value = tl.where(inside, value_of(total, theta, CARRIES), neutral)
                most = larger(value, most)
            if t >= 0:
                send(spikes, tl.cast(t, tl.int64) * spikes_step + n, live, most - last, shared)
            last = most
            # Another thread may load the totals of the next step than stored those of this one.
            tl.debug_barrier()


@triton.jit(do_not_specialize=["time_steps"])
def snm_running_total_kernel(
    x,
    x_step,
    total_in,
    total_out,
    time_steps,
    inputs,
    COUNTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Adds up what every input sends: the totals alone, also of inputs that lie in no window."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < inputs
    total_type: tl.constexpr = tl.int32 if COUNTS else tl.float32
    total = tl.zeros([BLOCK], total_type)
    if total_in is not None:
        total = tl.load(total_in + n, mask=live, other=0)
    for t in range(time_steps):
        row = tl.load(x + tl.cast(t, tl.int64) * x_step + n, mask=live, other=0)
        total = total + row.to(total_type)
    tl.store(total_out + n, total, mask=live)
