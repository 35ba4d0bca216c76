"""One folder a venue, with the same file names in each."""
