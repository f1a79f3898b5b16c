"""Classifiers with their normalisation inside."""

from quasinat.networks.normalise import Normalise
from quasinat.networks.vgg import PLANS, VGG, vgg, vgg16

__all__ = ["PLANS", "VGG", "Normalise", "vgg", "vgg16"]
