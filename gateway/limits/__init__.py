"""Where the buckets of rate limits are kept."""
