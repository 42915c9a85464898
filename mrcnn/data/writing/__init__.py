"""Datasets and detections in the formats of annotation tools: what one object becomes there, and whole datasets."""
