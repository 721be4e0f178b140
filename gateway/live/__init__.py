"""Live numbers: what `/metrics` says over a short while, as a person wants to see it. Stands alone: reads text only."""
