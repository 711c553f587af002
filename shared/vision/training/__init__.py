"""Training of the bundle `mini` on procedural pictures: losses, data, loops, evaluation."""
