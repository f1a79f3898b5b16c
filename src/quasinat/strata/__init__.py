"""The stratified quasi-natural space: which dictionary an image is coded with, and learning those dictionaries."""

from quasinat.strata.autoencoder import DenoisingAutoencoder, load_autoencoder, save_autoencoder, train_autoencoder
from quasinat.strata.bands import Split, split_bands
from quasinat.strata.dictionaries import learn_dictionaries
from quasinat.strata.dictionaries_file import load_dictionaries, save_dictionaries
from quasinat.strata.strata import Strata, fit_strata, strata_from

__all__ = [
    "DenoisingAutoencoder",
    "Split",
    "Strata",
    "fit_strata",
    "learn_dictionaries",
    "load_autoencoder",
    "load_dictionaries",
    "save_autoencoder",
    "save_dictionaries",
    "split_bands",
    "strata_from",
    "train_autoencoder",
]
