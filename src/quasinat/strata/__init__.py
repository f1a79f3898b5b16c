"""The stratified quasi-natural space: which dictionary an image is coded with, and learning those dictionaries."""

from quasinat.strata.autoencoder import DenoisingAutoencoder, train_autoencoder
from quasinat.strata.dictionaries import Split, learn_dictionaries, split_bands
from quasinat.strata.strata import Strata, fit_strata

__all__ = [
    "DenoisingAutoencoder",
    "Split",
    "Strata",
    "fit_strata",
    "learn_dictionaries",
    "split_bands",
    "train_autoencoder",
]
