"""The network of the demo: a small VGG for grey images of 28 by 28 pixels."""

from torch import Tensor, nn


def _conv_block(in_channels: int, out_channels: int, dropout: float) -> list[nn.Module]:
    """The layers of one convolution: itself, its batch norm, its ReLU and a dropout."""
    return [
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        nn.Dropout(dropout),
    ]


class SmallVGG(nn.Module):
    """A VGG of five convolutions with average pooling, so that its only nonlinearities are ReLUs.

    Most channels are where the maps are small: the network has 289,130 parameters and takes 10.4
    million multiply-accumulates per image, not counting the first convolution, which a spiking
    network with a constant input computes once.

    Args:
        num_classes: the number of outputs of the last linear layer.
        dropout: the share of activations that training leaves out; it also hardens the network for
            few time steps.

    Example:
        >>> import torch
        >>> SmallVGG().eval()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])

    Source: the 3x3 convolutions in stages of VGG (Simonyan and Zisserman, ICLR 2015).
    """

    def __init__(self, num_classes: int = 10, dropout: float = 0.0) -> None:
        """Creates the layers with untrained weights."""
        super().__init__()
        self.features = nn.Sequential(
            *_conv_block(1, 32, dropout),
            nn.AvgPool2d(2),
            *_conv_block(32, 64, dropout),
            nn.AvgPool2d(2),
            *_conv_block(64, 64, dropout),
            *_conv_block(64, 128, dropout),
            nn.AvgPool2d(2),
            *_conv_block(128, 128, dropout),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(128 * 3 * 3, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """The class scores of a batch of images.

        Args:
            images: float [B, 1, 28, 28], standardised as ``snm.demo.data.normalise`` does.

        Returns:
            Logits [B, num_classes], in the dtype of ``images``.
        """
        logits: Tensor = self.classifier(self.features(images))
        return logits
