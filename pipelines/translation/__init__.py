"""Translation: backends behind one protocol, recipes that name them, a cache that every run shares."""
