"""The boxes of the paper's figure, one file each."""

from mrcnn.backend import require_backend

require_backend()
