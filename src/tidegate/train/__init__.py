"""Training: models, the loop, folders of results, and the demo; needs the extra `train`."""
