"""`mrcnn data ...`: datasets looked at, checked, converted, split and drawn. Needs no framework."""
