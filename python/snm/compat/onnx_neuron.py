"""The neuron as an ONNX function of standard operators, line for line the reference's."""

DOMAIN, NAME, VERSION, OPSET = "snm_kernels", "SignedNeuronMemory", 1, 20

DESCRIPTION = """\
Signed neurons with memory over all time steps, in float32 with one rounding per operation:
u = v + drive[t]
s = min(floor(u / threshold), max_spikes, count_max - m) if u >= threshold and m < count_max
s = -1 else if u <= -negative_threshold * threshold and m > count_min (u < ... when strict)
s = 0 otherwise
v = u - s * threshold; m = m + s
A negative_threshold of NaN stands for no negative spikes, a threshold of +inf for a silent neuron.
"""

FUNCTION = f"""
<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>
{NAME}
<v_init: float, negative_threshold: float, strict: int,
 max_spikes: int, count_min: int, count_max: int>
(drive, threshold) => (spikes, v, m)
{{
  zero = Constant <value_float: float = 0.0> ()
  nan = Div (zero, zero)
  silent = IsInf (threshold)
  theta = Where (silent, zero, threshold)
  upper = Where (silent, nan, threshold)
  ratio = Constant <value_float: float = @negative_threshold> ()
  below = Mul (ratio, upper)
  lower = Neg (below)
  strict_given = Constant <value_int: int = @strict> ()
  strictly = Cast <to: int = 9> (strict_given)
  or_equal = Not (strictly)
  most_given = Constant <value_int: int = @max_spikes> ()
  most = Cast <to: int = 1> (most_given)
  low_given = Constant <value_int: int = @count_min> ()
  low = Cast <to: int = 6> (low_given)
  high_given = Constant <value_int: int = @count_max> ()
  high = Cast <to: int = 6> (high_given)
  start = Constant <value_float: float = @v_init> ()
  v_start = Mul (start, theta)
  shape = Shape <start: int = 1> (drive)
  v_first = Expand (v_start, shape)
  m_first = ConstantOfShape <value: tensor = int32[1] {{0}}> (shape)
  v, m, spikes = Scan <num_scan_inputs: int = 1, body: graph = step
  (float[] v_before, int32[] m_before, float[] c)
  => (float[] v_after, int32[] m_after, int8[] sent)
  {{
    u = Add (v_before, c)
    reaches = GreaterOrEqual (u, upper)
    has_room = Less (m_before, high)
    fires = And (reaches, has_room)
    is_below = Less (u, lower)
    is_not_above = LessOrEqual (u, lower)
    touches = And (is_not_above, or_equal)
    falls = Or (is_below, touches)
    has_sent = Greater (m_before, low)
    corrects = And (falls, has_sent)
    quotient = Div (u, theta)
    whole = Floor (quotient)
    fit = Where (fires, whole, zero)
    limited = Min (fit, most)
    limit = Cast <to: int = 6> (limited)
    full = Sub (high, limit)
    reached = Max (m_before, full)
    positive = Sub (high, reached)
    taken_back = Cast <to: int = 6> (corrects)
    negative = Neg (taken_back)
    s = Where (fires, positive, negative)
    count = Cast <to: int = 1> (s)
    amplitude = Mul (count, theta)
    v_after = Sub (u, amplitude)
    m_after = Add (m_before, s)
    sent = Cast <to: int = 3> (s)
  }}> (v_first, m_first, drive)
}}
"""
"""The function in ONNX's text form; types 1, 3, 6 and 9 are float, int8, int32 and bool."""
