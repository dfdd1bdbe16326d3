"""Convolutions of spikes as a Triton kernel: sums of int8 on tensor cores, neurons in registers.

A program has a block of outputs at a block of pixels, of one group of channels, and all time
steps, STEPS of them at once: the columns of its sums are STEPS x PIXELS, time outermost. So one
pass over the inputs serves STEPS time steps; and as a tensor core's result lies in registers, a
thread has all steps of its neurons, which it then runs one after the other.
"""
# What follows has the types of Triton's language, which mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl

from .snm_kernel import integer_starting_membrane, integer_thresholds, neuron_step


@triton.jit
def step_halves(value):
    """The earlier and the later half of the time steps in the last dimension."""
    PAIRED: tl.constexpr = [value.shape[0], value.shape[1], 2, value.shape[2] // 2]
    return tl.split(tl.permute(tl.reshape(value, PAIRED), [0, 1, 3, 2]))


@triton.jit
def step_whole(earlier, later):
    """The inverse of ``step_halves``."""
    WHOLE: tl.constexpr = [earlier.shape[0], earlier.shape[1], 2 * earlier.shape[2]]
    return tl.reshape(tl.permute(tl.join(earlier, later), [0, 1, 3, 2]), WHOLE)


@triton.jit
def neuron_steps(
    drive,
    first,
    time_steps,
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
    WHOLE: tl.constexpr,
):
    """Runs neurons over the time steps of ``drive [outputs, pixels, steps]``, from ``first`` on.

    WHOLE: all of these steps are to be run; else only those before ``time_steps``.

    Returns:
        int8 spikes, as the drive; v; m.
    """
    if drive.shape[2] == 1:
        c = tl.reshape(drive, [drive.shape[0], drive.shape[1]])
        _, s, _, v_after, m_after = neuron_step(
            c, theta, upper, lower, v, m, max_spikes, count_min, count_max, STRICT, GRADED
        )
        if not WHOLE:
            v_after = tl.where(first < time_steps, v_after, v)
            m_after = tl.where(first < time_steps, m_after, m)
        sent = tl.reshape(s.to(tl.int8), drive.shape)
    else:
        earlier, later = step_halves(drive)
        sent_earlier, v, m = neuron_steps(
            earlier,
            first,
            time_steps,
            theta,
            upper,
            lower,
            v,
            m,
            max_spikes,
            count_min,
            count_max,
            STRICT,
            GRADED,
            WHOLE,
        )
        sent_later, v_after, m_after = neuron_steps(
            later,
            first + drive.shape[2] // 2,
            time_steps,
            theta,
            upper,
            lower,
            v,
            m,
            max_spikes,
            count_min,
            count_max,
            STRICT,
            GRADED,
            WHOLE,
        )
        sent = step_whole(sent_earlier, sent_later)
    return sent, v_after, m_after


@triton.jit
def neurons_place(first_pixel, channel, every_output, PIXELS: tl.constexpr):
    """Where neurons ``[outputs, pixels]`` lie in ``[B, H', W', every_output]``."""
    pixel = first_pixel + tl.arange(0, PIXELS)
    return pixel[None, :] * every_output + channel[:, None]


@triton.jit
def neurons_live(first_pixel, pixels, known, PIXELS: tl.constexpr):
    """Which neurons ``[outputs, pixels]`` there are."""
    return known[:, None] & (first_pixel + tl.arange(0, PIXELS) < pixels)[None, :]


@triton.jit
def load_of_outputs(
    values,
    channel,
    known,
    first_pixel,
    live,
    places,
    every_output,
    OF_PIXELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Loads a threshold or bias: ``[outputs, 1]``, or ``[outputs, pixels]`` if it has pixels."""
    if OF_PIXELS:
        pixel = (first_pixel + tl.arange(0, PIXELS)) % places
        place = pixel[None, :] * every_output + channel[:, None]
        loaded = tl.load(values + place, mask=live, other=1)
    else:
        loaded = tl.load(values + channel, mask=known, other=1)[:, None]
    return loaded


@triton.jit(do_not_specialize=["time_steps", "max_spikes", "count_min", "count_max"])
def spike_conv_kernel(
    x,
    x_step,
    weight,
    bias,
    threshold,
    v_in,
    m_in,
    residual,
    residual_step,
    v_out,
    m_out,
    result,
    time_steps,
    pixels,
    groups,
    in_channels,
    out_channels,
    in_height,
    in_width,
    out_height,
    out_width,
    stride_height,
    stride_width,
    padding_height,
    padding_width,
    dilation_height,
    dilation_width,
    blocks,
    v_init,
    negative_threshold,
    max_spikes,
    count_min,
    count_max,
    KERNEL_HEIGHT: tl.constexpr,
    KERNEL_WIDTH: tl.constexpr,
    POOL_HEIGHT: tl.constexpr,
    POOL_WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    THRESHOLD_PIXELS: tl.constexpr,
    BIAS_PIXELS: tl.constexpr,
    STRICT: tl.constexpr,
    GRADED: tl.constexpr,
    WHOLE: tl.constexpr,
    NARROW: tl.constexpr,
    GATHERED: tl.constexpr,
    HALVES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PIXELS: tl.constexpr,
    STEPS: tl.constexpr,
    INPUTS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Convolves spikes and, with a threshold, runs the neurons that they drive.

    Args:
        x: int8 ``[T, B, H, W, channels]``, a time step ``x_step`` behind the last.
        weight: int8 ``[out_channels, taps * in_channels of a group]``.
        bias, threshold: int32 ``[out_channels]``, or with _PIXELS ``[H', W', out_channels]``; bias
            may be None. Without a threshold there are no neurons.
        v_in, m_in, residual: int32 ``[B, H', W', out_channels]``, the last with time; or None.
        v_out, m_out: as v_in; None without neurons.
        result: with neurons what they send, int8 with time, or None; else the sums, int32.
        pixels: those of all samples, B * H' * W'.
        in_channels, out_channels: of one group.
        in_height, in_width: in x itself, before the pooling.
        blocks: passes over blocks of INPUTS inputs.
        PADDED: there is padding, so that inputs may lie outside.
        WHOLE: STEPS divides the time steps.
        NARROW: places in STEPS time steps, and in the weight, fit in int32.
        GATHERED: a block of inputs may have several taps; else it has channels of one tap.
        HALVES: numbers are multiplied as float16, where there are no products of int8.
    """
    NEURONS: tl.constexpr = threshold is not None
    COLUMNS: tl.constexpr = STEPS * PIXELS
    offsets: tl.constexpr = tl.int32 if NARROW else tl.int64
    program = tl.program_id(0)
    over_outputs = tl.cdiv(out_channels, OUTPUTS)
    group = program // over_outputs % groups
    output = program % over_outputs * OUTPUTS + tl.arange(0, OUTPUTS)
    first_pixel = (program // over_outputs // groups).to(tl.int64) * PIXELS
    every_output = groups * out_channels
    every_input = groups * in_channels
    channel = group * out_channels + output
    known = output < out_channels

    # Of each column the pixel and step, and of a pixel the sample and where its inputs begin.
    column = tl.arange(0, COLUMNS)
    step = column // PIXELS
    column_pixel = first_pixel.to(offsets) + column % PIXELS
    top = column_pixel // out_width % out_height * stride_height - padding_height
    left = column_pixel % out_width * stride_width - padding_width
    sample = column_pixel // out_width // out_height
    line = sample.to(offsets) * in_height + top * POOL_HEIGHT
    begin = (line * in_width + left * POOL_WIDTH) * every_input + group * in_channels
    begin += step * tl.cast(x_step, offsets)
    pooled_height = in_height // POOL_HEIGHT
    pooled_width = in_width // POOL_WIDTH

    taps_inputs = KERNEL_HEIGHT * KERNEL_WIDTH * in_channels
    weight_row = weight + group.to(tl.int64) * out_channels * taps_inputs
    weight_place = output.to(offsets) * taps_inputs
    blocks_of_window = tl.cdiv(taps_inputs, INPUTS)
    of_block = tl.arange(0, INPUTS)

    live = neurons_live(first_pixel, pixels, known, PIXELS)
    if bias is not None:
        offset = load_of_outputs(
            bias,
            channel,
            known,
            first_pixel,
            live,
            out_height * out_width,
            every_output,
            BIAS_PIXELS,
            PIXELS,
        )
    if NEURONS:
        own = load_of_outputs(
            threshold,
            channel,
            known,
            first_pixel,
            live,
            out_height * out_width,
            every_output,
            THRESHOLD_PIXELS,
            PIXELS,
        )
        theta, upper, lower = integer_thresholds(own, negative_threshold, STRICT)
        if v_in is not None:
            v = tl.load(
                v_in + neurons_place(first_pixel, channel, every_output, PIXELS), mask=live, other=0
            )
        else:
            v = tl.broadcast_to(integer_starting_membrane(theta, v_init), [OUTPUTS, PIXELS])
        if m_in is not None:
            m = tl.load(
                m_in + neurons_place(first_pixel, channel, every_output, PIXELS), mask=live, other=0
            )
        else:
            m = tl.zeros([OUTPUTS, PIXELS], tl.int32)

    slice_size = tl.cast(pixels, tl.int64) * every_output
    corner = first_pixel * every_output
    in_slice = (column % PIXELS).to(offsets) * every_output
    for first in tl.range(0, time_steps, STEPS, num_stages=1):
        runs = (step < time_steps - first) & (column % PIXELS < pixels - first_pixel)
        x_first = x + first * tl.cast(x_step, tl.int64)
        stored = runs[:, None] & known[None, :]
        if residual is not None:
            residual_first = residual + corner + first * tl.cast(residual_step, tl.int64)
            of_rows = in_slice + step * tl.cast(residual_step, offsets)
            added = tl.load(
                residual_first + (of_rows[:, None] + channel[None, :]), mask=stored, other=0
            )
            sums = tl.trans(added)
        else:
            sums = tl.zeros([OUTPUTS, COLUMNS], tl.int32)
        for block in tl.range(0, blocks, num_stages=STAGES):
            window = block // blocks_of_window
            start = block % blocks_of_window * INPUTS
            if GATHERED:
                tap = (start + of_block) // in_channels
                input_channel = (start + of_block) % in_channels
            else:
                tap = start // in_channels
                input_channel = start % in_channels
            down = tap // KERNEL_WIDTH * dilation_height
            right = tap % KERNEL_WIDTH * dilation_width
            over = (down * POOL_HEIGHT + window // POOL_WIDTH).to(offsets) * in_width
            over += right * POOL_WIDTH + window % POOL_WIDTH
            moved = over * every_input + input_channel
            if GATHERED:
                spikes_place = begin[:, None] + moved[None, :]
                inside = runs[:, None] & (start + of_block < taps_inputs)[None, :]
                weights_inside = known[:, None] & (start + of_block < taps_inputs)[None, :]
                if PADDED:
                    y = top[:, None] + down[None, :]
                    z = left[:, None] + right[None, :]
                    inside &= (y >= 0) & (y < pooled_height) & (z >= 0) & (z < pooled_width)
            else:
                spikes_place = (begin + moved)[:, None] + of_block[None, :]
                inside = runs
                weights_inside = known[:, None]
                if PADDED:
                    y = top + down
                    z = left + right
                    inside &= (y >= 0) & (y < pooled_height) & (z >= 0) & (z < pooled_width)
                inside = inside[:, None]
            spikes = tl.load(x_first + spikes_place, mask=inside, other=0)
            weights_place = weight_place[:, None] + (start + of_block)[None, :]
            weights = tl.load(weight_row + weights_place, mask=weights_inside, other=0)
            if HALVES:
                # Of at most 128 products, these sums are exact in float32.
                part = tl.dot(weights.to(tl.float16), tl.trans(spikes.to(tl.float16)))
                sums += part.to(tl.int32)
            else:
                sums = tl.dot(weights, tl.trans(spikes), sums, out_dtype=tl.int32)

        place = (in_slice + step * tl.cast(slice_size, offsets))[:, None] + channel[None, :]
        if result is not None:
            result_first = result + corner + first * slice_size
        if NEURONS:
            drive = tl.permute(tl.reshape(sums, [OUTPUTS, STEPS, PIXELS]), [0, 2, 1])
            if bias is not None:
                drive += offset[:, :, None]
            sent, v, m = neuron_steps(
                drive,
                first,
                time_steps,
                theta,
                upper,
                lower,
                v,
                m,
                max_spikes,
                count_min,
                count_max,
                STRICT,
                GRADED,
                WHOLE,
            )
            if result is not None:
                rows = tl.reshape(tl.permute(sent, [0, 2, 1]), [OUTPUTS, COLUMNS])
                tl.store(result_first + place, tl.trans(rows), mask=stored)
        else:
            if bias is not None:
                drive = tl.reshape(sums, [OUTPUTS, STEPS, PIXELS]) + offset[:, None, :]
                sums = tl.reshape(drive, [OUTPUTS, COLUMNS])
            tl.store(result_first + place, tl.trans(sums), mask=stored)
    if NEURONS:
        neurons = neurons_place(first_pixel, channel, every_output, PIXELS)
        live = neurons_live(first_pixel, pixels, known, PIXELS)
        tl.store(v_out + neurons, v, mask=live)
        tl.store(m_out + neurons, m, mask=live)
