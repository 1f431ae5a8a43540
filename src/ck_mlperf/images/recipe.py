"""How preprocessing turns an image into a square of uint8 pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ck_mlperf.common.errors import UserError

INTERPOLATIONS = ("area", "linear", "cubic", "antialias")
CHANNEL_ORDERS = ("rgb", "bgr")
ASPECTS = ("keep", "stretch")
MAX_SIDE = 4096


@dataclasses.dataclass(frozen=True)
class ImageRecipe:
    """How an image becomes a square of uint8 pixels. `decode.decode_image` has the details.

    side: width and height of the result, in pixels.
    crop: the share of the image that is kept, in (0, 1], in steps of 0.001.
    interpolation: OpenCV's 'area', 'linear' or 'cubic', or 'antialias': bilinear over all pixels
    that an output pixel covers, as Pillow, and therefore torchvision, resizes.
    channels: order of the colours: 'rgb' or 'bgr'.
    aspect: 'keep': resize the short side to `resized_side`, then cut out the centre; 'stretch':
    cut the share `crop` out of each side, then resize both to `side`, as TensorFlow-Slim does.
    """

    side: int = 224
    crop: float = 0.875
    interpolation: str = "area"
    channels: str = "rgb"
    aspect: str = "keep"

    def __post_init__(self) -> None:
        if type(self.side) is not int or not 1 <= self.side <= MAX_SIDE:
            raise UserError(f"side={self.side!r}: want a whole number from 1 to {MAX_SIDE}")
        if isinstance(self.crop, bool) or not isinstance(self.crop, int | float):
            raise UserError(f"crop={self.crop!r}: want a number, such as 0.875")
        if not 0 < self.crop <= 1 or abs(self.crop * 1000 - round(self.crop * 1000)) > 1e-6:
            raise UserError(
                f"crop={self.crop!r}: want a share above 0, at most 1, in steps of 0.001"
            )
        object.__setattr__(self, "crop", round(self.crop, 3) + 0.0)
        for name, known in (
            ("interpolation", INTERPOLATIONS),
            ("channels", CHANNEL_ORDERS),
            ("aspect", ASPECTS),
        ):
            if getattr(self, name) not in known:
                raise UserError(f"{name}={getattr(self, name)!r}: want one of {', '.join(known)}")

    @property
    def crop_permille(self) -> int:
        """The crop in thousandths, as tags write it: 875 is 0.875."""
        return round(self.crop * 1000)

    @property
    def resized_side(self) -> int:
        """Length of the short side after resizing, in pixels, rounded down as MLCommons does."""
        return self.side * 1000 // self.crop_permille

    def tags(self) -> list[str]:
        """CK tags that name this recipe; the opposite of `from_tags`."""
        return [
            "using-opencv",
            f"side.{self.side}",
            f"crop.{self.crop_permille}",
            f"inter.{self.interpolation}",
            f"{self.channels}8",
            f"aspect.{self.aspect}",
        ]

    @classmethod
    def from_tags(cls, tags: Iterable[str]) -> ImageRecipe:
        """The recipe named by CK tags. Other tags are ignored; what no tag names has its default.

        Raises UserError where a value makes no sense or two tags disagree.
        """
        found: dict[str, Any] = {}
        for tag in tags:
            key, _, text = tag.partition(".")
            value: Any
            if key in ("side", "crop"):
                if not (text.isascii() and text.isdigit()):
                    raise UserError(f"tag {tag!r}: want a whole number after the dot")
                value = int(text) if key == "side" else int(text) / 1000
            elif key == "inter":
                key, value = "interpolation", text
            elif key == "aspect":
                value = text
            elif tag in ("rgb8", "bgr8"):
                key, value = "channels", tag[:3]
            else:
                continue
            if found.setdefault(key, value) != value:
                raise UserError(f"tag {tag!r}: another tag says {key}={found[key]!r}")
        return cls(**found)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ImageRecipe:
        """The opposite of `to_dict`; aspect may be absent. Raises UserError on any other fault."""
        if not isinstance(data, Mapping):
            raise UserError(f"image recipe: want an object, got {data!r}")
        wanted = {field.name for field in dataclasses.fields(cls)}
        if set(data) | {"aspect"} != wanted:
            raise UserError(
                f"image recipe: want exactly {sorted(wanted)}, got {sorted(map(str, data))}"
            )
        return cls(**data)
