"""The layers of a network of integers as a header of C99."""

import json
import re
from collections.abc import Iterable, Iterator

import snm_kernels

from .testbench_layers import KINDS, PARTS, Array, Layer, Layers

_MOST = 100
"""The most characters of a line."""
_TYPES = {"int8": "int8_t", "int32": "int32_t", "float64": "double"}

_NUMBERS = (
    ("out_channels", "", "sizes of what it makes; what has no such dimension has 1"),
    ("out_height", "", ""),
    ("out_width", "", ""),
    ("channels", "", "sizes of what it reads: conv, linear, sum_pool, max_pool, scale"),
    ("height", "", ""),
    ("width", "", ""),
    ("groups", "", "conv, linear"),
    ("kernel", "[2]", "height and width: conv, linear; max_pool, 0 if adaptive"),
    ("stride", "[2]", ""),
    ("padding", "[2]", ""),
    ("dilation", "[2]", ""),
    ("pool", "[2]", "windows to sum: sum_pool; conv, linear before they convolve"),
    ("threshold_shared", "", "neurons in a row that share an element of threshold, lower, start"),
    ("bias_shared", "", "neurons in a row that share an element of their bias"),
    ("count_min", "", "neurons"),
    ("count_max", "", "neurons"),
    ("max_spikes", "", "neurons"),
)
"""The integers of a layer's descriptor: name, dimensions, what they are."""
_ARRAYS = (
    ("int8_t", "weight", "conv, linear: [out_channels][channels / groups][kernel[0]][kernel[1]]"),
    ("int32_t", "bias", "conv, linear: [out_channels]; neurons: [size / bias_shared]"),
    ("int32_t", "threshold", "neurons: [size / threshold_shared]"),
    ("int32_t", "lower", "neurons: [size / threshold_shared]"),
    ("int32_t", "start", "neurons: [size / threshold_shared]"),
    ("int32_t", "factor", "scale: [channels]"),
    ("int32_t", "windows", "max_pool: [out_height + out_width][2]"),
    ("double", "unit", "readout: [size]"),
)
"""The constants of a layer, each 0 where it has none."""

_SEMANTICS = """\
A network of integers, by snm-kernels {version}.

{upper}_layers has the layers in the order in which they are computed, {upper}_values the values
that they read and make: how many elements each has for one image, in C order, with its sizes
[channels][height][width], and in how many bytes they fit, signed. Value 0 is the image, in steps of
its scale. Within {upper}_MOST_STEPS time steps no membrane leaves 32 bits; but in a layer of which
no neuron can fire it wraps around.

Layers of the part {upper}_ONCE are computed once, before the first time step, those of
{upper}_EVERY_STEP in each, and those of {upper}_AT_THE_END once, behind the last.

  conv, linear  First sums what it reads over windows, as sum_pool does. Then, with steps the
                number of time steps at the end, and 1 before,
                out[k][y][x] = steps * bias[k] + the sum over c, i and j of weight[k][c][i][j]
                  * in[k / (out_channels / groups) * (channels / groups) + c]
                      [y * stride[0] - padding[0] + i * dilation[0]]
                      [x * stride[1] - padding[1] + j * dilation[1]], 0 outside.
  sum_pool      Sums over windows of pool[0] x pool[1], side by side. What is left over is not
                read.
  scale         out[c][y][x] = factor[c] * in[c][y][x].
  sum           out[i] = in[i] + other[i].
  max_pool      Adds up what each element of what it reads has been since the first step, and
                sends by how much the largest total of a window has grown in this step, from 0
                before the first. Window (y, x) has the rows windows[y][0], every dilation[0] of
                them, below windows[y][1]; its columns are in windows[out_height + x].
  neurons       Membranes begin at start, counts at 0. In each time step
                u = membrane + in + other + bias, other being -1 and bias 0 where there is none.
                If threshold < 2147483647 and u >= threshold and count < count_max, then
                  s = the least of u / threshold, max_spikes, and count_max - count, which may
                  take 33 bits;
                else if u < lower and count > count_min, s = -1; else s = 0.
                out = s, membrane = u - s * threshold, count = count + s. Layers at the end read
                the counts after the last step, which are the value of the number counts.
  readout       logit[i] = (float)((double)in[i] * unit[i] / steps)."""


def header_of(layers: Layers, prefix: str, most_steps: int) -> str:
    """The text of the header.

    Args:
        layers: what is written.
        prefix: the beginning of all names, a C identifier.
        most_steps: in how many time steps nothing overflows.
    """
    return "\n".join([*_lines(layers, prefix, most_steps), ""])


def _lines(layers: Layers, prefix: str, most_steps: int) -> Iterator[str]:
    upper, guard = prefix.upper(), f"{prefix.upper()}_NETWORK_H"
    said = _SEMANTICS.format(version=snm_kernels.__version__, upper=upper)
    yield "/* " + "\n   ".join(said.split("\n")).replace("\n   \n", "\n\n") + " */"
    yield from (f"#ifndef {guard}", f"#define {guard}", "", "#include <stdint.h>", "")
    yield f"#define {upper}_LAYERS {len(layers.layers)}"
    yield f"#define {upper}_VALUES {len(layers.places)}"
    yield f"#define {upper}_INPUT 0"
    yield f"#define {upper}_INPUT_SIZE {layers.places[0].size}"
    yield "/* The sums that the readout reads; without one, the counts of the last neurons. */"
    yield f"#define {upper}_OUTPUT {layers.output}"
    yield f"#define {upper}_OUTPUT_SIZE {layers.places[layers.output].size}"
    yield f"#define {upper}_MOST_STEPS {most_steps}"
    yield ""
    for names in (KINDS, PARTS.values()):
        yield from _wrapped((f"{upper}_{name.upper()}" for name in names), "enum { ", "  ", " };")
    yield ""
    yield f"typedef struct {{ int32_t size, bytes; }} {prefix}_value;"
    yield ""
    yield from _struct(prefix)
    for number, layer in enumerate(layers.layers):
        for name, array in layer.arrays.items():
            yield from _array(f"{prefix}_{number}_{name}", array)
    yield f"static const {prefix}_value {prefix}_values[{upper}_VALUES] = {{"
    yield from (f"  {{{place.size}, {place.bytes}}}," for place in layers.places)
    yield from ("};", "", f"static const {prefix}_layer {prefix}_layers[{upper}_LAYERS] = {{")
    for number, layer in enumerate(layers.layers):
        yield from _wrapped(_described(layer, number, prefix), "  {", "    ", "},")
    yield from ("};", "", f"#endif /* {guard} */")


def _struct(prefix: str) -> Iterator[str]:
    """The type of a layer's descriptor."""
    yield "typedef struct {"
    yield "  const char *path; /* in the network, or the name of what the layer does */"
    yield "  int32_t kind, part;"
    yield "  int32_t in, other, out; /* numbers of values, -1 for none */"
    yield "  int32_t counts; /* neurons: the number of the value that their counts are */"
    yield "  int32_t size; /* elements that it makes for one image */"
    for name, dims, what in _NUMBERS:
        yield f"  int32_t {name}{dims};" + (f" /* {what} */" if what else "")
    for kind, name, what in _ARRAYS:
        yield f"  const {kind} *{name}; /* {what} */"
    yield from (f"}} {prefix}_layer;", "")


def _described(layer: Layer, number: int, prefix: str) -> Iterator[str]:
    """A layer's descriptor."""
    upper = prefix.upper()
    first, other = (*layer.reads, -1)[:2]
    yield f".path = {_quoted(layer.path)}"
    yield f".kind = {upper}_{layer.kind.upper()}"
    yield f".part = {upper}_{layer.part.upper()}"
    yield from (f".in = {first}", f".other = {other}", f".out = {layer.makes}")
    yield f".counts = {layer.counts}"
    for name, value in layer.fields.items():
        numbers = map(_number, value if isinstance(value, tuple) else (value,))
        made = ", ".join(numbers)
        yield f".{name} = {{{made}}}" if isinstance(value, tuple) else f".{name} = {made}"
    yield from (f".{name} = {prefix}_{number}_{name}" for name in layer.arrays)


def _array(name: str, array: Array) -> Iterator[str]:
    """The definition of a constant."""
    kind = _TYPES[str(array.dtype)]
    flat = array.reshape(-1).tolist()
    yield f"static const {kind} {name}[{len(flat)}] = {{"
    # Hexadecimal numbers are exact.
    numbers = (value.hex() if isinstance(value, float) else _number(value) for value in flat)
    yield from _wrapped(numbers, "  ", "  ", "")
    yield from ("};", "")


def _wrapped(parts: Iterable[str], first: str, others: str, last: str) -> Iterator[str]:
    """Parts with commas between them, in lines of limited length."""
    line = first
    comma = ""
    for part in parts:
        if len(line) + len(part) + 3 > _MOST and comma:
            yield line + ","
            line, comma = others, ""
        line += (f"{comma} " if comma else "") + part
        comma = ","
    yield line + last


def _number(value: int) -> str:
    """An integer of C; the least of int32 is no number and its sign there."""
    return "INT32_MIN" if value == -(2**31) else str(value)


def _quoted(text: str) -> str:
    """A string of C, with an underscore for what C does not read as it is."""
    return json.dumps(re.sub(r"[^ -~]|[?]", "_", text))
