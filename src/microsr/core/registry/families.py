"""Families of networks, each a `microsr.networks.families.Family`, by the words that `train.network` may be."""

FAMILIES = {
    "efficient": "microsr.networks.families:EFFICIENT",
    "resnet": "microsr.networks.families:RESNET",
    "compact": "microsr.networks.families:COMPACT",
}
