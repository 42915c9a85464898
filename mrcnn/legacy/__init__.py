"""The functions of the original under their old names, with their old signatures: thin over `layers`, `ops`, `losses`
and `data`. Import them where they always were: `mrcnn.model` and `mrcnn.utils`."""
