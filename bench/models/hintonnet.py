"""HintonNet and its half: the fully connected pair of DAFL's MNIST experiments.

The papers' digits are 28x28, 784 inputs. Here the task's image is flattened whole: channels * size * size inputs, 1,024
for the usual 1x32x32.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.data.image_spec import ImageSpec


class HintonNet(nn.Module):
    """Two hidden layers with ReLU; images of any size in, logits (N, classes) out.

    The features are the second hidden layer's output, after ReLU. There is no dropout.
    Initialisation is the framework's default.
    """

    def __init__(self, image: ImageSpec, classes: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(image.channels * image.size * image.size, width), nn.ReLU()),
            *(nn.Linear(width, width), nn.ReLU()),
        )
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images))
        return logits


def hintonnet(image: ImageSpec, classes: int) -> HintonNet:
    """784-1200-1200-10: 2,395,210 parameters for 10 classes on 1x28x28, 2,683,210 on 1x32x32."""
    return HintonNet(image, classes, 1200)


def hintonnet_half(image: ImageSpec, classes: int) -> HintonNet:
    """784-800-800-10: 1,276,810 parameters for 10 classes on 1x28x28, 1,468,810 on 1x32x32."""
    return HintonNet(image, classes, 800)
