"""What was found in images, in the formats of other programs: a file for each, and `saving` with the list of them."""
