"""The defences that the paper compares with, each a function or module of its own; parameters from their papers.

Input transformations go in front of any classifier: `Defended(TotalVariation(), classifier)`; `DEFENCES` has them by
name. Detectors flag images. The others change the network: how it is trained, or how it is run.
"""

from quasinat.defences.activation_pruning import ActivationPruning, prune_activations
from quasinat.defences.adversarial_training import train_on_fgsm, train_on_pgd
from quasinat.defences.bit_depth import BitDepth, reduce_bit_depth
from quasinat.defences.crops import CropEnsemble, random_crops
from quasinat.defences.d3 import D3, d3
from quasinat.defences.detector import Detector
from quasinat.defences.feature_squeezing import FeatureSqueezing, JointDetector, feature_squeezing
from quasinat.defences.filters import (
    GaussianFilter,
    MeanFilter,
    MedianFilter,
    gaussian_filter,
    mean_filter,
    median_filter,
)
from quasinat.defences.jpeg import Jpeg, jpeg
from quasinat.defences.local_dimension import LocalDimensionDetector, local_dimension, noise_like
from quasinat.defences.magnet import Magnet, MagnetDetectors, cifar_detectors, reform
from quasinat.defences.magnet_autoencoder import learn_magnet, load_magnet, save_magnet
from quasinat.defences.natural_patches import learn_patch_dictionary, load_patch_dictionary, save_patch_dictionary
from quasinat.defences.non_local_means import NonLocalMeans, non_local_means
from quasinat.defences.patch_bank import PatchBank, build_patch_bank, load_patch_bank, save_patch_bank
from quasinat.defences.pixel_defend import PixelDefend, pixel_defend
from quasinat.defences.pixel_deflection import PixelDeflection, deflect_pixels
from quasinat.defences.pixelcnn_learning import learn_pixelcnn, load_pixelcnn, save_pixelcnn
from quasinat.defences.quilting import Quilting, quilt
from quasinat.defences.region import RegionVote
from quasinat.defences.registry import DEFENCES, NEEDS, defence_from
from quasinat.defences.resize_and_pad import ResizeAndPad, resize_and_pad
from quasinat.defences.total_variation import TotalVariation, total_variation
from quasinat.defences.transformation import Transformation, Views, with_seed
from quasinat.defences.wavelet import WaveletShrinkage, wavelet_shrinkage

__all__ = [
    "D3",
    "DEFENCES",
    "NEEDS",
    "ActivationPruning",
    "BitDepth",
    "CropEnsemble",
    "Detector",
    "FeatureSqueezing",
    "GaussianFilter",
    "JointDetector",
    "Jpeg",
    "LocalDimensionDetector",
    "Magnet",
    "MagnetDetectors",
    "MeanFilter",
    "MedianFilter",
    "NonLocalMeans",
    "PatchBank",
    "PixelDefend",
    "PixelDeflection",
    "Quilting",
    "RegionVote",
    "ResizeAndPad",
    "TotalVariation",
    "Transformation",
    "Views",
    "WaveletShrinkage",
    "build_patch_bank",
    "cifar_detectors",
    "d3",
    "defence_from",
    "deflect_pixels",
    "feature_squeezing",
    "gaussian_filter",
    "jpeg",
    "learn_magnet",
    "learn_patch_dictionary",
    "learn_pixelcnn",
    "load_magnet",
    "load_patch_bank",
    "load_patch_dictionary",
    "load_pixelcnn",
    "local_dimension",
    "mean_filter",
    "median_filter",
    "noise_like",
    "non_local_means",
    "pixel_defend",
    "prune_activations",
    "quilt",
    "random_crops",
    "reduce_bit_depth",
    "reform",
    "resize_and_pad",
    "save_magnet",
    "save_patch_bank",
    "save_patch_dictionary",
    "save_pixelcnn",
    "total_variation",
    "train_on_fgsm",
    "train_on_pgd",
    "wavelet_shrinkage",
    "with_seed",
]
