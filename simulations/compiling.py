"""How programs are compiled for a processor; other devices pay no attention."""

PLAIN = {"xla_cpu_use_fusion_emitters": False}
"""Without XLA's fusion emitters: half the time to compile, and no slower to run but for drawing batches."""

PLAIN_AND_WIDE = PLAIN | {"xla_cpu_prefer_vector_width": 512}
"""For steps of training: with vectors as wide as a processor has them, not the 256 bits that LLVM prefers."""
