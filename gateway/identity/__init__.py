"""Whom a token speaks for: keys, where they come from, and the verifier that uses them."""
