"""The mesh layer: generation, reading and repair, measures, interpolation, conversion."""
