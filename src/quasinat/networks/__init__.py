"""Classifiers with their normalisation inside."""

from quasinat.networks.classifier_file import Classifier, load_classifier, save_classifier
from quasinat.networks.mobilenet import MobileNetV2, load_mobilenet, mobilenet, of_classes, with_new_head
from quasinat.networks.normalise import Normalise
from quasinat.networks.saturating import SaturatedLinear, distance_from_saturation, saturation_penalty, unsaturated
from quasinat.networks.thermometer import Thermometer, read_thermometer, thermometer, with_backward
from quasinat.networks.vgg import ACTIVATIONS, ENCODINGS, PLANS, VGG, vgg, vgg16

__all__ = [
    "ACTIVATIONS",
    "ENCODINGS",
    "PLANS",
    "VGG",
    "Classifier",
    "MobileNetV2",
    "Normalise",
    "SaturatedLinear",
    "Thermometer",
    "distance_from_saturation",
    "load_classifier",
    "load_mobilenet",
    "mobilenet",
    "of_classes",
    "read_thermometer",
    "saturation_penalty",
    "save_classifier",
    "thermometer",
    "unsaturated",
    "vgg",
    "vgg16",
    "with_backward",
    "with_new_head",
]
