"""The way to the store that several gateway processes share; `store` and `limits` go it together."""
