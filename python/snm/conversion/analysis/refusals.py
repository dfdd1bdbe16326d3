"""Says why an operation that is not affine is refused, and what to do instead."""

from torch import fx

from ..tracing.traced_model import TracedModel
from .operations import clip_of
from .pooling import pools_channels

_AT_THE_END = "is not affine; leave it off and apply it to the logits"
_KEEPS_ORDER = "is not affine; leave it off, the largest logit stays the largest"
_ONLY_RELU = "only ReLU has a spiking neuron; train or fine-tune the model with ReLU"
_GATE = (
    "only ReLU has a spiking neuron; a gate, such as that of squeeze-and-excitation, has to be "
    "left out and the model fine-tuned"
)
_REASONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("fractional",), "pools at random; max pooling of fixed windows is known"),
    (
        ("maxpool", "max_pool", "maxunpool", "max_unpool"),
        "hands out or reads the indices of maxima; only the maxima themselves are known",
    ),
    (
        ("amax", "amin", "tensor.max", "tensor.min"),
        "takes a maximum or minimum; only max pooling is known, such as nn.AdaptiveMaxPool2d(1)",
    ),
    (
        ("softmax", "softmin", "attention", "transformer"),
        "divides by a sum of what changes over time; attention has no spiking counterpart",
    ),
    (
        ("layernorm", "layer_norm", "groupnorm", "group_norm", "instancenorm", "instance_norm"),
        "divides by a statistic of its own input, which changes at every step; "
        "batch normalisation is known",
    ),
    (
        ("response_norm", "responsenorm", "normalize", "rms_norm", "rmsnorm"),
        "divides by a statistic of its own input, which changes at every step",
    ),
    (("lppool", "lp_pool"), "takes powers; average and max pooling are known"),
    (("lstm", "gru", "rnn"), "is recurrent; only feed-forward networks are converted"),
    (("sigmoid",), _GATE),
    (
        (
            *("elu", "silu", "mish", "swish", "tanh", "softplus", "softsign", "shrink", "glu"),
            *("maximum", "threshold"),
        ),
        _ONLY_RELU,
    ),
)
_SORTS = ("argmax", "argmin", "argsort", "softmax", "softmin", "sort", "topk")
_POOLS_CHANNELS = (
    "takes its input for a single image, without a batch, and pools over the channels too; it must "
    "be [B, C, ...] with one more dimension"
)
_UNKNOWN = "conversion does not know it as an affine operation"


def refusal(traced: TracedModel, node: fx.Node, *, at_end: bool) -> str:
    """Why a node that changes over time and is not affine is refused.

    Args:
        at_end: forward returns it.
    """
    name = traced.operation(node).lower()
    if at_end and any(word in name for word in _SORTS):
        return _KEEPS_ORDER
    reason = known_refusal(traced, node)
    return _AT_THE_END if at_end and reason in (None, _GATE) else reason or _UNKNOWN


def known_refusal(traced: TracedModel, node: fx.Node) -> str | None:
    """Why a node is refused wherever its value changes over time; None if no reason is known."""
    clip = clip_of(traced, node)
    if clip is not None:
        low, high = ("-inf" if clip.low is None else clip.low), (clip.high or "inf")
        return f"clips to [{low}, {high}]; a spiking neuron clips to [0, inf] or [0, number]"
    if pools_channels(traced, node):
        return _POOLS_CHANNELS
    name = traced.operation(node).lower()
    return next((why for words, why in _REASONS if any(word in name for word in words)), None)
