"""Accuracy that a training reaches in a time: ours against torchvision's, on real data."""
