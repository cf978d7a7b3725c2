"""Who starts workers, where, and how many."""
