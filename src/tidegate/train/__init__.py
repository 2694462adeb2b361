"""Training: models, the loop, folders of results, and the demo; needs the extra `train`."""

from tidegate.train.folders import load_classifier, save_classifier

__all__ = ["load_classifier", "save_classifier"]
