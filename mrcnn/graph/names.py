"""Names of the graph's tensors: what those who write it and those who run it agree on."""

INPUTS = ("input_image", "input_image_meta", "input_anchors")
OUTPUTS = ("detections", "image_index", "masks")

# Tensors whose last digits decide pixels. OpenVINO computes in bfloat16 whatever lies between the inputs and the last
# convolution or matrix product before an output, coordinates too; what an output is made of stays float32. So its
# engine asks for the tensors of this prefix as outputs.
FLOAT32_PREFIX = "float32/"
