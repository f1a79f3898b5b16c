"""Experiments: settings in, result file out."""

from quasinat.experiments.run import run_demo
from quasinat.experiments.settings import PRESETS, DemoSettings, demo_settings
from quasinat.experiments.train_settings import TrainSettings

__all__ = ["PRESETS", "DemoSettings", "TrainSettings", "demo_settings", "run_demo"]
