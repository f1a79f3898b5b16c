"""Experiments: settings in, result file out."""

from quasinat.experiments.run import run_demo
from quasinat.experiments.settings import PRESETS, DemoSettings, demo_settings

__all__ = ["PRESETS", "DemoSettings", "demo_settings", "run_demo"]
