"""Methods that are trained, each a `microsr.training.methods.method.TrainableMethod`, by what `methods.<name>.kind` may
be beside an upsampler.
"""

from typing import Literal, NamedTuple

Data = Literal["unpaired"]
"""What a method may learn from. unpaired: patches of clinical CT and of uCT that have nothing to do with each other."""
FILES: dict[str, tuple[str, ...]] = {"unpaired": ("clinical", "micro")}
"""The files of patches that each kind of data needs, by what they hold."""


class Entry(NamedTuple):
    """A method: its place, what the documentation says of it, what it learns from, and its settings."""

    place: str
    help: str
    data: Data = "unpaired"
    settings: str = ""
    """Place of its `microsr.config.methods.method.TrainedMethod`; none: it has no settings but `train`."""


METHODS: dict[str, Entry] = {
    "cyclegan": Entry(
        "microsr.training.methods.cyclegan:CycleGAN",
        help="The modified CycleGAN (Zheng et al. 2020): two generators and two discriminators.",
        settings="microsr.config.methods.cyclegan:CycleGANMethod",
    ),
}
"""By the word for its kind."""
