"""Several processes on one port: a supervisor, its workers, and what they tell each other."""
