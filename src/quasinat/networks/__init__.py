"""Classifiers with their normalisation inside."""

from quasinat.networks.classifier_file import load_classifier, save_classifier
from quasinat.networks.normalise import Normalise
from quasinat.networks.vgg import PLANS, VGG, vgg, vgg16

__all__ = ["PLANS", "VGG", "Normalise", "load_classifier", "save_classifier", "vgg", "vgg16"]
