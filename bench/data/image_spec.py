"""The geometry of a task's images, and what happens to real training images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from bench.utils.yaml import Strict

Finite = Annotated[float, Field(allow_inf_nan=False)]


class ImageSpec(Strict):
    """Geometry and normalisation of a task's images: normalised = (pixel / 255 - mean) / std, per channel.

    Attributes:
        channels: the number of channels, C.
        size: height and width in pixels.
        mean: one number for each channel, of pixels in [0, 1].
        std: one number above 0 for each channel, of pixels in [0, 1].
    """

    channels: int = Field(ge=1)
    size: int = Field(ge=4, description="height and width in pixels")
    mean: tuple[Finite, ...]
    std: tuple[Finite, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)"""
        return (self.channels, self.size, self.size)

    @model_validator(mode="after")
    def _one_number_a_channel(self) -> ImageSpec:
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError("mean and std need one number per channel, std above 0")
        return self


class Augmentation(Strict):
    """The augmentation of real training images, drawn each time they are used: random crops and mirror images.

    Images larger than the task's (see ``TaskSpec.resize``), or padded to be so, are cropped at random to its size.
    """

    pad: int = Field(default=0, ge=0, description="black pixels added on every side before the random crop")
    flip: bool = Field(default=False, description="mirror half of the images horizontally, at random")
