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
    """The membrane before the first time step, as in csrc/rule.h."""
    return tl.cast(v_init, tl.float32) * theta


@triton.jit
def bounded(value):
    """A number within int32, NaN at the lower end, as in csrc/rule.h."""
    raised = tl.where(value > -2147483648.0, value, -2147483648.0)
    return tl.where(raised < 2147483647.0, raised, 2147483647.0)


@triton.jit
def integer_thresholds(theta, negative_threshold, STRICT: tl.constexpr):
    """The same of integers, which compare by u > upper and u < lower, as in csrc/rule.h."""
    silent = theta == 2147483647
    upper = tl.where(silent, theta, theta - 1)
    ratio = tl.cast(float("nan") if negative_threshold is None else negative_threshold, tl.float32)
    real = theta.to(tl.float64) * -ratio.to(tl.float64)
    # Of what is at most 0, the conversion to an integer is the ceiling.
    ceiling = bounded(real).to(tl.int32)
    lower = ceiling if STRICT else tl.where(ceiling.to(tl.float64) == real, ceiling + 1, ceiling)
    return theta, upper, tl.where(silent, -2147483648, lower)


@triton.jit
def integer_starting_membrane(theta, v_init):
    """The membrane of integers before the first time step, as in csrc/rule.h."""
    fraction = tl.where(theta == 2147483647, 0.0, tl.cast(v_init, tl.float32)).to(tl.float64)
    real = bounded(theta.to(tl.float64) * fraction)
    cut = real.to(tl.int32)
    return cut - (cut.to(tl.float64) > real).to(tl.int32)


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
    """Runs one time step with drive c. GRADED: the rule allows more than one spike a step."""
    INTEGERS: tl.constexpr = theta.dtype == tl.int32
    u = v + c
    reaches = (u > upper) if INTEGERS else (u >= upper)
    fires = reaches & (m < count_max)
    below = (u < lower) if STRICT or INTEGERS else (u <= lower)
    corrects = below & (m > count_min)
    s = tl.where(fires, 1, tl.where(corrects, -1, 0))
    amplitude = tl.where(fires, theta, tl.where(corrects, -theta, tl.zeros_like(theta)))
    if GRADED:
        gamma = tl.cast(max_spikes, theta.dtype)
        # Of what is at least 0, the conversion to an integer is the floor.
        quotient = (tl.where(fires, u, 0) // theta) if INTEGERS else tl.div_rn(u, theta)
        fit = tl.where(fires, quotient, tl.zeros_like(theta))
        limit = tl.where(fit < gamma, fit, gamma).to(tl.int32)
        full = count_max - limit
        s = tl.where(fires, count_max - tl.maximum(m, full), s)
        amplitude = s.to(theta.dtype) * theta
        # An inexact product: the choice keeps compilers from contracting it with the difference.
        amplitude = tl.where(theta == 0, tl.zeros_like(theta), amplitude)
    v = u - amplitude
    m = m + s
    return corrects, s, amplitude, v, m


@triton.jit
def load_parameter(
    values, inner, period, n, live, SHARED: tl.constexpr, NARROW: tl.constexpr, BLOCK: tl.constexpr
):
    """Loads each neuron's threshold or bias. SHARED: one for all. NARROW: n fits in int32."""
    if values is None:
        loaded = None
    elif SHARED:
        loaded = tl.broadcast_to(tl.load(values), [BLOCK])
    else:
        place = n.to(tl.int32) if NARROW else n
        loaded = tl.load(values + (place // inner) % period, mask=live, other=1.0)
    return loaded


@triton.jit
def store_spikes(row, live, s, amplitude):
    """Writes what a time step sends, in the dtype of the row: int8 takes s."""
    if row.dtype.element_ty == tl.int8:
        tl.store(row, s.to(tl.int8), mask=live)
    else:
        tl.store(row, amplitude.to(row.dtype.element_ty), mask=live)


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
    STAGES: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Runs BLOCK neurons over all time steps; residual, bias, spikes and all that ends in _in may
    be None, and negative_out where nobody counts negative spikes.

    A time slice holds ``neurons`` adjacent elements. A pass of the loop is UNROLL time steps; its
    rows are copied to shared memory STAGES - 1 passes ahead, which no row already written is, so
    spikes may take the place of the drive.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < neurons
    own = load_parameter(
        threshold, threshold_inner, threshold_period, n, live, THRESHOLD_SHARED, NARROW, BLOCK
    )
    INTEGERS: tl.constexpr = own.dtype == tl.int32
    if INTEGERS:
        theta, upper, lower = integer_thresholds(own, negative_threshold, STRICT)
    else:
        theta, upper, lower = thresholds(own, negative_threshold)
    offset = load_parameter(bias, bias_inner, bias_period, n, live, BIAS_SHARED, NARROW, BLOCK)
    if v_in is not None:
        v = tl.load(v_in + n, mask=live)
    elif INTEGERS:
        v = integer_starting_membrane(theta, v_init)
    else:
        v = starting_membrane(theta, v_init)
    m = tl.zeros([BLOCK], tl.int32) if m_in is None else tl.load(m_in + n, mask=live)
    if negative_out is not None:
        negative = tl.zeros([BLOCK], tl.int32)
        if negative_in is not None:
            negative = tl.load(negative_in + n, mask=live)

    drive_row = drive + n
    if residual is not None:
        residual_row = residual + n
    if spikes is not None:
        spikes_row = spikes + n
    for _ in tl.range(0, time_steps, num_stages=STAGES, loop_unroll_factor=UNROLL):
        c = tl.load(drive_row, mask=live).to(theta.dtype)
        drive_row += drive_step
        if offset is not None:
            c = c + offset
        if residual is not None:
            c = c + tl.load(residual_row, mask=live).to(theta.dtype)
            residual_row += residual_step
        corrects, s, amplitude, v, m = neuron_step(
            c, theta, upper, lower, v, m, max_spikes, count_min, count_max, STRICT, GRADED
        )
        if negative_out is not None:
            negative = negative + corrects.to(tl.int32)
        if spikes is not None:
            store_spikes(spikes_row, live, s, amplitude)
            spikes_row += spikes_step
    tl.store(v_out + n, v, mask=live)
    tl.store(m_out + n, m, mask=live)
    if negative_out is not None:
        tl.store(negative_out + n, negative, mask=live)
