"""Every evaluation of a full grid of configurations, trained once, and searches replayed on it."""
