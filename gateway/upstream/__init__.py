"""The controller's side: connections, deadlines, and one mapping of everything that can go wrong."""
