"""The conversions beside the real frameworks, which read these settings when they are first imported."""

import os

os.environ["KERAS_BACKEND"] = "torch"
os.environ["JAX_PLATFORMS"] = "cpu"
