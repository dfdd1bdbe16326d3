"""The neuron as a Triton kernel: all time steps in one launch, the state in registers.

``thresholds``, ``starting_membrane`` and ``neuron_step`` say the same as reference.py and
csrc/rule.h, line for line.
"""
# What follows has the types of Triton's language, which mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def thresholds(threshold, negative_threshold):
    """What a neuron compares with and what a spike carries, as in csrc/rule.h."""
    silent = threshold == float("inf")
    theta = tl.where(silent, 0.0, threshold)
    upper = tl.where(silent, float("nan"), threshold)
    ratio = tl.cast(float("nan") if negative_threshold is None else negative_threshold, tl.float32)
    lower = -ratio * upper
    return theta, upper, lower


@triton.jit
def starting_membrane(theta, v_init):
    return tl.cast(v_init, tl.float32) * theta


@triton.jit
def neuron_step(
    c,
    theta,
    upper,
    lower,
    v,
    m,
    max_spikes,
    count_min,
    count_max,
    STRICT: tl.constexpr,
    GRADED: tl.constexpr,
):
    """One time step with drive c. GRADED: the rule allows more than one spike a step."""
    u = v + c
    fires = (u >= upper) & (m < count_max)
    below = (u < lower) if STRICT else (u <= lower)
    corrects = below & (m > count_min)
    s = fires.to(tl.int32) - corrects.to(tl.int32)
    amplitude = tl.where(fires, theta, tl.where(corrects, -theta, 0.0))
    if GRADED:
        gamma = tl.cast(max_spikes, tl.float32)
        # Of what is at least 0, the conversion to an integer is the floor.
        fit = tl.where(fires, tl.div_rn(u, theta), 0.0)
        limit = tl.where(fit < gamma, fit, gamma).to(tl.int32)
        full = count_max - limit
        s = tl.where(fires, count_max - tl.maximum(m, full), s)
        amplitude = s.to(tl.float32) * theta
        # An inexact product: the choice keeps compilers from contracting it with the difference.
        amplitude = tl.where(theta == 0.0, 0.0, amplitude)
    v = u - amplitude
    m = m + s
    return corrects, s, amplitude, v, m


@triton.jit
def load_parameter(
    values, inner, period, n, live, SHARED: tl.constexpr, NARROW: tl.constexpr, BLOCK: tl.constexpr
):
    """Each neuron's threshold or bias. SHARED: one value for all. NARROW: n fits in int32."""
    if values is None:
        loaded = None
    elif SHARED:
        loaded = tl.broadcast_to(tl.load(values), [BLOCK])
    else:
        place = n.to(tl.int32) if NARROW else n
        loaded = tl.load(values + (place // inner) % period, mask=live, other=1.0)
    return loaded


@triton.jit
def load_row(rows, step, t, time_steps, n, live):
    """Asks for the values of time step t, if there is one; steps count elements and may be 0."""
    wanted = tl.where(t < time_steps, live, False)
    return tl.load(rows + tl.cast(t, tl.int64) * step + n, mask=wanted)


@triton.jit
def next_row(row, rows, step, t, time_steps, n, live, APART: tl.constexpr):
    """Asks for the values of time step t in the place of ``row``, if there is such a step."""
    if APART:
        # A branch keeps the compiler from gathering the loads of many steps in one place.
        if t < time_steps:
            row = tl.load(rows + tl.cast(t, tl.int64) * step + n, mask=live)
    else:
        row = load_row(rows, step, t, time_steps, n, live)
    return row


@triton.jit
def total_drive(drives, offset, residuals, i: tl.constexpr):
    """Row i of the drive with the bias and the residual, if there are any."""
    c = drives[i].to(tl.float32)
    if offset is not None:
        c = c + offset
    if len(residuals) > 0:
        c = c + residuals[i].to(tl.float32)
    return c


@triton.jit
def store_spikes(spikes, step, t, n, live, s, amplitude):
    """Writes what time step t sends, in the dtype of spikes: int8 takes s."""
    if spikes is not None:
        place = spikes + tl.cast(t, tl.int64) * step + n
        if spikes.dtype.element_ty == tl.int8:
            tl.store(place, s.to(tl.int8), mask=live)
        else:
            tl.store(place, amplitude.to(spikes.dtype.element_ty), mask=live)


@triton.jit
def replaced(rows, i: tl.constexpr, row):
    """The tuple of rows with another row at place i."""
    changed = rows[:i]
    changed += (row,)
    return changed + rows[i + 1 :]


@triton.jit(do_not_specialize=["time_steps", "max_spikes", "count_min", "count_max"])
def snm_kernel(
    drive,
    drive_step,
    residual,
    residual_step,
    threshold,
    threshold_inner,
    threshold_period,
    bias,
    bias_inner,
    bias_period,
    v_in,
    m_in,
    negative_in,
    v_out,
    m_out,
    negative_out,
    spikes,
    spikes_step,
    time_steps,
    neurons,
    v_init,
    negative_threshold,
    max_spikes,
    count_min,
    count_max,
    STRICT: tl.constexpr,
    GRADED: tl.constexpr,
    THRESHOLD_SHARED: tl.constexpr,
    BIAS_SHARED: tl.constexpr,
    NARROW: tl.constexpr,
    BLOCK: tl.constexpr,
    AHEAD: tl.constexpr,
    APART: tl.constexpr,
):
    """Runs BLOCK neurons over all time steps; residual, bias, spikes and all that ends in _in may
    be None, and negative_out where nobody counts negative spikes.

    A time slice holds ``neurons`` adjacent elements. A row is requested AHEAD steps before it is
    used and is never one already written, so spikes may take the place of the drive.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < neurons
    own = load_parameter(
        threshold, threshold_inner, threshold_period, n, live, THRESHOLD_SHARED, NARROW, BLOCK
    )
    theta, upper, lower = thresholds(own, negative_threshold)
    offset = load_parameter(bias, bias_inner, bias_period, n, live, BIAS_SHARED, NARROW, BLOCK)
    v = starting_membrane(theta, v_init) if v_in is None else tl.load(v_in + n, mask=live)
    m = tl.zeros([BLOCK], tl.int32) if m_in is None else tl.load(m_in + n, mask=live)
    if negative_out is not None:
        negative = tl.zeros([BLOCK], tl.int32)
        if negative_in is not None:
            negative = tl.load(negative_in + n, mask=live)

    drives, residuals = (), ()
    for i in tl.static_range(AHEAD):
        drives += (load_row(drive, drive_step, i, time_steps, n, live),)
        if residual is not None:
            residuals += (load_row(residual, residual_step, i, time_steps, n, live),)
    whole = time_steps // AHEAD * AHEAD
    for start in range(0, whole, AHEAD):
        for i in tl.static_range(AHEAD):
            c = total_drive(drives, offset, residuals, i)
            corrects, s, amplitude, v, m = neuron_step(
                c, theta, upper, lower, v, m, max_spikes, count_min, count_max, STRICT, GRADED
            )
            if negative_out is not None:
                negative = negative + corrects.to(tl.int32)
            store_spikes(spikes, spikes_step, start + i, n, live, s, amplitude)
            # A row is asked for where its place is free: moving it would mean waiting for it.
            ahead = start + i + AHEAD
            row = next_row(drives[i], drive, drive_step, ahead, time_steps, n, live, APART)
            drives = replaced(drives, i, row)
            if residual is not None:
                last = residuals[i]
                row = next_row(last, residual, residual_step, ahead, time_steps, n, live, APART)
                residuals = replaced(residuals, i, row)
    for i in tl.static_range(AHEAD - 1):
        if whole + i < time_steps:
            c = total_drive(drives, offset, residuals, i)
            corrects, s, amplitude, v, m = neuron_step(
                c, theta, upper, lower, v, m, max_spikes, count_min, count_max, STRICT, GRADED
            )
            if negative_out is not None:
                negative = negative + corrects.to(tl.int32)
            store_spikes(spikes, spikes_step, whole + i, n, live, s, amplitude)
    tl.store(v_out + n, v, mask=live)
    tl.store(m_out + n, m, mask=live)
    if negative_out is not None:
        tl.store(negative_out + n, negative, mask=live)
