"""Methods that are trained, each a `microsr.training.methods.method.TrainableMethod`, by what `methods.<name>.kind` may
be beside an upsampler.
"""

from typing import Literal, NamedTuple

Data = Literal["unpaired", "pairs"]
"""What a method may learn from. unpaired: patches of clinical CT and of uCT that have nothing to do with each other.
pairs: patches of uCT, each with its scans (`microsr pairs`)."""
FILES: dict[str, tuple[str, ...]] = {"unpaired": ("clinical", "micro"), "pairs": ("micro", "scans", "scan_table")}
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
    "regression": Entry(
        "microsr.training.methods.regression:Regression",
        help="G1 alone, by its mean squared error on pairs.",
        data="pairs",
        settings="microsr.config.methods.pairs:RegressionMethod",
    ),
    "posterior": Entry(
        "microsr.training.methods.posterior:Posterior",
        help="G1 alone, by proper scores of its draws on pairs.",
        data="pairs",
        settings="microsr.config.methods.pairs:PosteriorMethod",
    ),
}
"""By the word for its kind."""
